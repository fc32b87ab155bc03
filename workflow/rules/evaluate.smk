# Reads   lesion maps and annotations of the val and test slides
# Writes  results/metrics/{slide}.json        one slide's agreement with the pathologist
#         results/metrics/slides.tsv          all slides
#         results/metrics/cohort.tsv          every figure of each split, with its confidence interval
#         results/metrics/summary.json        the same for programs, with curves, sweep and calibration
#         results/metrics/headline.txt        the same in a few lines
#         results/metrics/models.tsv          this model and those of evaluation.compare on the same slides
#         results/metrics/*.svg               ROC, precision-recall, FROC, calibration, thresholds, areas, lesions by size


rule evaluate_slide:
    """Hold one slide's lesion map against its annotation."""
    input:
        info="results/slides/{slide}.json",
        probability="results/lesions/{slide}/probability.ome.tif",
        lesions="results/lesions/{slide}/lesions.tif",
        tissue="results/tissue/{slide}.tif",
        annotation="results/annotations/{slide}.geojson",
    output:
        "results/metrics/{slide}.json",
    log:
        "logs/evaluate_slide/{slide}.log",
    benchmark:
        "results/benchmarks/evaluate_slide/{slide}.tsv"
    conda:
        "../../envs/lesionmap.yaml"
    threads: 1
    resources:
        mem_mb=3000,
        runtime=20,
    params:
        role=slide_role,
        code=code_digest("evaluate_slide"),
    script:
        "../../scripts/evaluate_slide.py"


rule summarise:
    """Put the metrics of all slides together."""
    input:
        collect("results/metrics/{slide}.json", slide=evaluated_slides),
    output:
        slides="results/metrics/slides.tsv",
        cohort="results/metrics/cohort.tsv",
        summary="results/metrics/summary.json",
        headline="results/metrics/headline.txt",
    log:
        "logs/summarise.log",
    benchmark:
        "results/benchmarks/summarise.tsv"
    conda:
        "../../envs/lesionmap.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=20,
    params:
        bootstrap=config["evaluation"]["bootstrap"],
        min_lesion_um=config["evaluation"]["min_lesion_um"],
        code=code_digest("summarise"),
    script:
        "../../scripts/summarise.py"


rule plot_metrics:
    """Draw the figures of all slides together."""
    input:
        summary="results/metrics/summary.json",
        slides="results/metrics/slides.tsv",
    output:
        roc="results/metrics/roc.svg",
        precision_recall="results/metrics/precision_recall.svg",
        froc="results/metrics/froc.svg",
        calibration="results/metrics/calibration.svg",
        thresholds="results/metrics/thresholds.svg",
        areas="results/metrics/areas.svg",
        lesion_sizes="results/metrics/lesion_sizes.svg",
    log:
        "logs/plot_metrics.log",
    benchmark:
        "results/benchmarks/plot_metrics.tsv"
    conda:
        "../../envs/lesionmap.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        code=code_digest("plot_metrics"),
    script:
        "../../scripts/plot_metrics.py"


rule compare_models:
    """Put the figures of several models on the same slides side by side."""
    input:
        own=collect("results/metrics/{slide}.json", slide=evaluated_slides),
        others=list(config["evaluation"]["compare"].values()),
    output:
        "results/metrics/models.tsv",
    log:
        "logs/compare_models.log",
    benchmark:
        "results/benchmarks/compare_models.tsv"
    conda:
        "../../envs/lesionmap.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=20,
    params:
        others=config["evaluation"]["compare"],
        bootstrap=config["evaluation"]["bootstrap"],
        min_lesion_um=config["evaluation"]["min_lesion_um"],
        code=code_digest("compare_models"),
    script:
        "../../scripts/compare_models.py"
