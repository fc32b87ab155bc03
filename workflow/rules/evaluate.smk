# Reads   probability maps and annotations of the val and test slides
# Writes  results/metrics/{slide}.json        one slide's agreement with the pathologist
#         results/metrics/slides.tsv          all slides
#         results/metrics/cohort.json         per split, over all its pixels
#         results/metrics/headline.txt        the same in a few lines


rule evaluate_slide:
    """Hold one slide's lesion map against its annotation."""
    input:
        info="results/slides/{slide}.json",
        probability="results/lesions/{slide}/probability.ome.tif",
        record="results/lesions/{slide}/inference.json",
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
        split=slide_split,
        code=code_digest("evaluate_slide"),
    script:
        "../../scripts/evaluate_slide.py"


rule summarise:
    """Put the metrics of all slides together."""
    input:
        collect("results/metrics/{slide}.json", slide=evaluated_slides),
    output:
        table="results/metrics/slides.tsv",
        cohort="results/metrics/cohort.json",
        headline="results/metrics/headline.txt",
    log:
        "logs/summarise.log",
    benchmark:
        "results/benchmarks/summarise.tsv"
    conda:
        "../../envs/lesionmap.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        code=code_digest("summarise"),
    script:
        "../../scripts/summarise.py"
