# Reads   the slide sheet and the slides
# Writes  results/slides/{slide}.json   what a slide is, or why it is in quarantine
#         results/manifest.tsv          readable slides and their flags


rule inspect_slide:
    """Open one slide, read samples of every level, and record what it is or why it is in quarantine."""
    input:
        slide=local(slide_file),
    output:
        "results/slides/{slide}.json",
    log:
        "logs/inspect_slide/{slide}.log",
    benchmark:
        "results/benchmarks/inspect_slide/{slide}.tsv"
    group:
        shard("inspect", 20)
    conda:
        "../../envs/lesionmap.yaml"
    threads: 1
    resources:
        mem_mb=grows(1000),
        runtime=grows(20),
    params:
        row=slide_row,
        present=files_exist,
        future=slide_date_to_come,
        settings=inspection_settings(config),
        code=code_digest("inspect_slide"),
    script:
        "../../scripts/inspect_slide.py"


checkpoint build_manifest:
    """List the slides that can be used."""
    input:
        collect("results/slides/{slide}.json", slide=SLIDES),
    output:
        "results/manifest.tsv",
    log:
        "logs/build_manifest.log",
    benchmark:
        "results/benchmarks/build_manifest.tsv"
    localrule: True
    conda:
        "../../envs/lesionmap.yaml"
    threads: 1
    resources:
        mem_mb=grows(1000),
        runtime=grows(10),
    params:
        code=code_digest("build_manifest"),
    script:
        "../../scripts/build_manifest.py"
