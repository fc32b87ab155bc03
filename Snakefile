"""LesionMap: from a sheet of whole-slide images to lesion maps and a report. Start reading here."""

from snakemake.utils import min_version

min_version("9.27")


configfile: "config/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/doctor.smk"
include: "workflow/rules/slides.smk"
include: "workflow/rules/tissue.smk"
include: "workflow/rules/annotations.smk"
include: "workflow/rules/stain.smk"
include: "workflow/rules/tiles.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/infer.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/report.smk"


onerror:
    # The table of a run that cannot reach its end would otherwise be that of an earlier one, or none.
    show_quarantine(
        existing("results/slides/{slide}.json"),
        existing("results/tiles/{slide}.h5"),
        [
            *existing("results/tissue/{slide}.tif"),
            *existing("results/annotations/{slide}.geojson"),
            *existing("results/stain/{slide}.json"),
            *existing("results/lesions/{slide}/lesions.geojson"),
        ],
        "results/quarantine.tsv",
        "results/unreadable.tsv",
    )


rule all:
    """The report, everything it shows, and the run's verdict on slides in quarantine."""
    default_target: True
    input:
        "results/report/index.html",
        "results/conclusion.txt",
