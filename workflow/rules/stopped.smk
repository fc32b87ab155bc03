# What a run shows when it stops before its end.

from lesionmap.run.quarantine_tables import RunFiles, show_quarantine


def existing(*patterns):
    """Those files of all slides that are there."""
    return [path for path in expand(patterns, slide=SLIDES) if Path(path).exists()]


def show_losses():
    """Say what is in quarantine when a run cannot reach its end; the tables would be those of an earlier run, or none."""
    others = (f"results/{kind}" for kind in ("tissue/{slide}.tif", "annotations/{slide}.geojson", "stain/{slide}.json"))
    files = RunFiles(
        records=existing("results/slides/{slide}.json"),
        tiles=existing("results/tiles/{slide}.json"),
        outlines=existing("results/lesions/{slide}/lesions.geojson"),
        others=existing(*others),
    )
    if show_quarantine(files, "results/quarantine.tsv", "results/unreadable.tsv"):
        # To Snakemake they would be up to date once the slide of a failed job has the content it had before.
        workflow.persistence.started(rules.list_quarantine)
