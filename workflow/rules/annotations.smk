# Reads   one slide's annotation: ASAP, ImageScope, HALO, QuPath or a class mask; its tissue
# Writes  results/annotations/{slide}.geojson   the one canonical form, level-0 pixels
#         results/annotations/{slide}.json      how much of each class lies on tissue, flags


rule import_annotation:
    """Convert one slide's annotation to the canonical form."""
    input:
        annotation=local(annotation_file),
        info="results/slides/{slide}.json",
    output:
        "results/annotations/{slide}.geojson",
    log:
        "logs/import_annotation/{slide}.log",
    benchmark:
        "results/benchmarks/import_annotation/{slide}.tsv"
    group:
        shard("prepare", 20)
    conda:
        "../../envs/lesionmap.yaml"
    threads: 1
    resources:
        mem_mb=grows(2000),
        runtime=grows(5),
    params:
        annotations=config["annotations"],
        mask_mpp=mask_mpp,
        code=code_digest("import_annotation"),
    script:
        "../../scripts/import_annotation.py"


rule check_annotation:
    """See whether one slide's annotation lies on its tissue; no result depends on this."""
    input:
        annotation="results/annotations/{slide}.geojson",
        info="results/slides/{slide}.json",
        tissue="results/tissue/{slide}.tif",
    output:
        "results/annotations/{slide}.json",
    log:
        "logs/check_annotation/{slide}.log",
    benchmark:
        "results/benchmarks/check_annotation/{slide}.tsv"
    group:
        shard("checks", 20)
    conda:
        "../../envs/lesionmap.yaml"
    threads: 1
    resources:
        mem_mb=grows(2000),
        runtime=grows(5),
    params:
        code=code_digest("check_annotation"),
    script:
        "../../scripts/check_annotation.py"
