# Reads   one slide's annotation, and that of a second reader: ASAP, ImageScope, HALO, QuPath or a class mask; its tissue
# Writes  results/annotations/{slide}.geojson         the one canonical form, level-0 pixels
#         results/annotations/identity/{slide}.json   its SHA-256, by which the rules that use it notice a change
#         results/annotations/second/…                the same two files of a second reader
#         results/annotations.tsv                     all of these
#         results/annotations/{slide}.json            how much of each class lies on tissue, flags


rule import_annotation:
    """Convert one slide's annotation to the canonical form."""
    input:
        info="results/slides/info/{slide}.json",
    output:
        canonical="results/annotations/{slide}.geojson",
        identity="results/annotations/identity/{slide}.json",
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
        path=annotation_path,
        state=state_of(annotation_path),
        annotations=config["annotations"],
        mask_mpp=mask_mpp,
        code=code_digest("import_annotation"),
    script:
        "../../scripts/import_annotation.py"


rule import_second_annotation:
    """Convert a second reader's annotation of one slide; if it cannot be used, the first is compared alone."""
    input:
        info="results/slides/info/{slide}.json",
    output:
        canonical="results/annotations/second/{slide}.geojson",
        identity="results/annotations/second/identity/{slide}.json",
    log:
        "logs/import_second_annotation/{slide}.log",
    benchmark:
        "results/benchmarks/import_second_annotation/{slide}.tsv"
    group:
        shard("prepare", 20)
    conda:
        "../../envs/lesionmap.yaml"
    threads: 1
    resources:
        mem_mb=grows(2000),
        runtime=grows(5),
    params:
        path=second_path,
        state=state_of(second_path),
        annotations=config["annotations"],
        mask_mpp=mask_mpp,
        code=code_digest("import_second_annotation"),
    script:
        "../../scripts/import_second_annotation.py"


checkpoint list_annotations:
    """List the annotations; Snakemake plans what uses them once it knows which have changed."""
    input:
        # Of all slides, also of those in quarantine: Snakemake takes a checkpoint that waits for another as done.
        first=collect("results/annotations/identity/{slide}.json", slide=annotated_rows()),
        second=collect("results/annotations/second/identity/{slide}.json", slide=second_rows()),
    output:
        "results/annotations.tsv",
    log:
        "logs/list_annotations.log",
    benchmark:
        "results/benchmarks/list_annotations.tsv"
    localrule: True
    conda:
        "../../envs/lesionmap.yaml"
    threads: 1
    resources:
        mem_mb=grows(1000),
        runtime=grows(10),
    params:
        code=code_digest("list_annotations"),
    script:
        "../../scripts/list_annotations.py"


rule check_annotation:
    """See whether one slide's annotation lies on its tissue; no result depends on this."""
    input:
        annotation=ancient("results/annotations/{slide}.geojson"),
        annotation_identity="results/annotations/identity/{slide}.json",
        info="results/slides/info/{slide}.json",
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
