# Reads   the names of all files that the rules write, the slide sheet
# Writes  results/prune.tsv   a row per path of a slide that is not in the sheet: slide, path, bytes
#         …excluded.tsv       beside the sheet: the slides that prune_listed removed

from snakemake.io import strip_wildcard_constraints


def written_paths():
    """Paths of all outputs, logs and benchmarks; those of a slide hold {slide}."""
    paths = {path for rule in AS_IMPORTED.rules for path in (*rule.output, *rule.log, rule.benchmark) if path}
    return sorted(strip_wildcard_constraints(str(path)) for path in paths)


def whole_workflow(wildcards):
    """What the rules write, and for which slides."""
    named = {key: config["slides"][key] for key in ("sheet", "copies")} | {"model": config["model"]["path"]}
    return {"paths": written_paths(), "slides": list(SLIDES), "results": with_prefix("results")} | named


def other_run(wildcards):
    """Whether another Snakemake works in this folder, or was killed there."""
    return any(True for _ in workflow.persistence._read_locks())


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
