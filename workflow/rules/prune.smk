# Reads   the names of all files that the rules write, the slide sheet
# Writes  results/prune.tsv   a row per path of a slide that is not in the sheet: slide, path, bytes
#         …excluded.tsv       beside the sheet: the slides that prune_listed removed


rule prune:
    """List what there is of slides that are no longer in the sheet, and remove nothing."""
    log:
        "logs/prune.log",
    retries: 0
    localrule: True
    conda:
        "../../envs/lesionmap.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        # No output, as for the doctor: Snakemake would call the list up to date.
        table=with_prefix("results/prune.tsv"),
        workflow=whole_workflow,
    script:
        "../../scripts/prune.py"


rule prune_listed:
    """Remove what `snakemake prune` has listed."""
    log:
        "logs/prune_listed.log",
    retries: 0
    localrule: True
    conda:
        "../../envs/lesionmap.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        table=with_prefix("results/prune.tsv"),
        workflow=whole_workflow,
        busy=other_run,
    script:
        "../../scripts/prune_listed.py"
