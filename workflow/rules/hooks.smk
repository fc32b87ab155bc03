# What happens around the rules: before the first job, when a run stops, and in a job on a cluster. Included last.

from lesionmap.errors import StorageError
from lesionmap.run import start_checks
from lesionmap.run.quarantine_tables import RunFiles, show_quarantine


def check_start():
    """Refuse to start if jobs would fail after their work: results that are read-only, dates in the future.

    Refuse --until if the slides' inspection is out of date, so that the plan has none of its jobs.
    Say what the model has set in the config, and what maps it was not trained for.
    """
    if workflow.dag_settings.until and not any(workflow.dag.until_jobs()):
        refuse_until()
    for note in SETTINGS.notes:
        logger.info(f"LesionMap, model {config['model']['path'] or 'of this run'}: {note}")
    try:
        start_checks.check_writable(with_prefix("results"))
        if not workflow.touch:  # --touch gives results new dates
            start_checks.check_results(with_prefix("results"), leave_out=("benchmarks", "views"))
    except StorageError as error:
        raise WorkflowError(f"LesionMap: {error}")


def existing(*patterns):
    """Those files of all slides that exist."""
    return [path for path in map(with_prefix, expand(patterns, slide=SLIDES)) if Path(path).exists()]


def show_quarantine_so_far():
    """Show what is in quarantine if a run stops early; else the tables would be missing or those of an earlier run."""
    others = (
        "tissue/{slide}.tif",
        "annotations/{slide}.geojson",
        "stain/matches/{slide}.json",
        "lesions/{slide}/lesions.json",
    )
    others += ("lesions/{slide}/lesions.dcm", "report/views/{slide}", "stain/{slide}.png")
    others += ("annotations/second/identity/{slide}.json",)
    files = RunFiles(
        records=existing("results/slides/{slide}.json"),
        tiles=existing("results/tiles/{slide}.json"),
        maps=existing("results/lesions/{slide}/inference.json"),
        others=existing(*(f"results/{kind}" for kind in others)),
    )
    tables = (with_prefix(f"results/{name}.tsv") for name in ("quarantine", "unreadable", "failed_exports"))
    if show_quarantine(files, *tables):
        # Else Snakemake would take them as up to date once the slide of a failed job has its earlier content again.
        workflow.persistence.started(rules.list_quarantine)


# A job on a cluster reads config, sheet and rules again. If there are checkpoints, Snakemake plans everything that its
# inputs are made from, down to the sheet, which took each job a minute and 1 GB. The job was sent because its inputs
# exist, so it needs no rule but its own.
if not workflow.is_main_process:
    for rule_ in AS_IMPORTED.rules:
        rule_.is_checkpoint = False
