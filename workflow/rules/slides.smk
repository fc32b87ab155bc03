# Reads   the slide sheet and the slides
# Writes  results/slides/{slide}.json            all that is found about a slide, or why it is in quarantine
#         results/slides/info/{slide}.json       what it takes to read it; if this changes, its other jobs run again
#         results/slides/location/{slide}.json   where it is, and the state of its files, for those jobs to compare
#         results/manifest.tsv                   readable slides and their flags


rule inspect_slide:
    """Open one slide, read samples of every level, and record what it is or why it is in quarantine."""
    output:
        record="results/slides/{slide}.json",
        info="results/slides/info/{slide}.json",
        location="results/slides/location/{slide}.json",
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
        # Not an input: Snakemake would only notice a newer file, and only one of the slide's files.
        state=watched_state,
        annotated=annotation_exists,
        settings=inspection_settings(SETTINGS.config),
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
