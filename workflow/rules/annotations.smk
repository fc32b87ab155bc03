# Reads   one slide's annotation: ASAP, ImageScope, HALO, QuPath or a class mask
# Writes  results/annotations/{slide}.geojson   the one canonical form, level-0 pixels


rule import_annotation:
    """Convert one slide's annotation to the canonical form."""
    input:
        annotation=annotation_file,
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
