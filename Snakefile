"""LesionMap: from a sheet of whole-slide images to lesion maps and a report. Start reading here."""

from snakemake.utils import min_version

min_version("9.27")


configfile: "config/config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/cohort.smk"
include: "workflow/rules/cluster.smk"
include: "workflow/rules/started.smk"
include: "workflow/rules/stopped.smk"
include: "workflow/rules/doctor.smk"
include: "workflow/rules/slides.smk"
include: "workflow/rules/tissue.smk"
include: "workflow/rules/annotations.smk"
include: "workflow/rules/stain.smk"
include: "workflow/rules/tiles.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/infer.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/views.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/job.smk"


onstart:
    check_start()


onerror:
    show_losses()


rule all:
    """The report, everything it shows, and the run's verdict on slides in quarantine."""
    default_target: True
    input:
        "results/report/index.html",
        "results/model/MODEL_CARD.md",
        "results/tiles/summary.tsv",
        "results/conclusion.txt",
