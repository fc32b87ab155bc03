# Reads   records, lesions, annotations and metrics of all slides
# Writes  results/review/outlines/{slide}.geojson   predicted and annotated outlines, to correct in QuPath
#         results/review/slides.tsv      where the slides lie, how many outlines each has, what is left out and why
#         results/review/HOWTO.md        how to correct them, and how the corrections come back
#         results/review/import.groovy   adds all of them to a QuPath project
#         results/review/before/         metrics of this run, with which those of the next are compared
#         results/metrics/before_after.tsv    the model before and after the corrections, on the same slides
#         results/metrics/before_after.json   how many slides that are, and how many are left out


rule review:
    """Write the predicted lesions of all slides for correction in QuPath; run `snakemake review` after a run."""
    input:
        records=collect("results/slides/{slide}.json", slide=SLIDES),
        infos=collect("results/slides/info/{slide}.json", slide=readable_slides),
        locations=collect("results/slides/location/{slide}.json", slide=readable_slides),
        outlines=collect("results/lesions/{slide}/lesions.geojson", slide=readable_slides),
        annotations=collect("results/annotations/{slide}.geojson", slide=annotated_slides),
        metrics=collect("results/metrics/slides/{slide}.json", slide=evaluated_slides),
        slide_table=once_known("results/metrics/slides.tsv"),
    log:
        "logs/review.log",
    retries: 0
    localrule: True
    conda:
        "../../envs/lesionmap.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        # No output: Snakemake would empty the folder at each review, and with it what somebody has put there.
        folder=with_prefix("results/review"),
    script:
        "../../scripts/review.py"


rule compare_with_before:
    """Compare the maps of this run with those that were last reviewed."""
    input:
        own=collect("results/metrics/slides/{slide}.json", slide=evaluated_slides),
        slide_table=once_known("results/metrics/slides.tsv"),
        before=local(with_prefix("results/review/before")),
    output:
        table="results/metrics/before_after.tsv",
        counts="results/metrics/before_after.json",
    log:
        "logs/compare_with_before.log",
    benchmark:
        "results/benchmarks/compare_with_before.tsv"
    conda:
        "../../envs/lesionmap.yaml"
    threads: 1
    resources:
        mem_mb=grows(2000),
        runtime=grows(20),
    params:
        min_lesion_um=config["evaluation"]["min_lesion_um"],
        code=code_digest("compare_with_before"),
    script:
        "../../scripts/compare_with_before.py"
