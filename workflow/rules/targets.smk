# Targets: `snakemake tissue` brings all readable slides as far as their tissue. They work from the start, before it is
# known which slides are readable; `--until` and `--dry-run` do not. `snakemake --list-target-rules` explains them.


rule slides:
    """Inspect every slide of the sheet; results/manifest.tsv lists those that are readable."""
    input:
        "results/manifest.tsv",


rule tissue:
    """Find the tissue of every readable slide."""
    input:
        collect("results/tissue/{slide}.tif", slide=stained_slides),


rule annotations:
    """Convert every annotation to the canonical form, and see whether it lies on tissue."""
    input:
        collect("results/annotations/{slide}.geojson", slide=annotated_slides),
        collect("results/annotations/{slide}.json", slide=annotated_slides),


rule stain:
    """Match every readable slide to the stain reference, and show what that looks like."""
    input:
        "results/stain/cohort.tsv",
        collect("results/stain/{slide}.png", slide=stained_slides),


rule tiles:
    """Cut the training and validation slides into tiles."""
    input:
        "results/tiles/summary.tsv",
        # Temporary stores would be removed at once; training makes its own.
        branch(
            config["tiles"]["store"] == "temp",
            then=[],
            otherwise=collect("results/tiles/{slide}.h5", slide=tiled_slides),
        ),


rule model:
    """Train the model, and describe it."""
    input:
        model_file,
        "results/model/lesionmap.onnx",
        "results/model/MODEL_CARD.md",
        branch(config["model"]["path"], then=[], otherwise="results/model/learning_curves.svg"),


rule maps:
    """Map every readable slide, find its lesions, and export them."""
    input:
        collect("results/lesions/{slide}/lesions.geojson", slide=readable_slides),
        collect("results/lesions/{slide}/lesions.dcm", slide=dicom_slides),


rule metrics:
    """Compare the lesion maps with the annotations, and draw the plots."""
    input:
        "results/metrics/cohort.tsv",
        rules.plot_metrics.output,
        branch(config["evaluation"]["compare"], then="results/metrics/models.tsv", otherwise=[]),


rule experiments:
    """Train every variant on every fold with every seed, judge each slide by models that have not seen it, and compare."""
    input:
        "results/experiments/report.html",
        "results/experiments/table.tsv",
        collect(
            "results/experiments/variants/{variant}/ensemble/lesions/{slide}/lesions.geojson",
            variant=ENSEMBLES,
            slide=other_slides,
        ),
