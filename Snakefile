"""LesionMap: from a sheet of whole-slide images to lesion maps and a report. Start reading here."""

from snakemake.utils import min_version

min_version("9.27")


report: "workflow/report/workflow.rst"


include: "workflow/rules/source.smk"
include: "workflow/rules/common.smk"
include: "workflow/rules/lookups.smk"
include: "workflow/rules/cluster.smk"
include: "workflow/rules/doctor.smk"
include: "workflow/rules/slides.smk"
include: "workflow/rules/tissue.smk"
include: "workflow/rules/annotations.smk"
include: "workflow/rules/stain.smk"
include: "workflow/rules/tiles.smk"
include: "workflow/rules/training.smk"
include: "workflow/rules/inference.smk"
include: "workflow/rules/lesions.smk"
include: "workflow/rules/evaluation.smk"
include: "workflow/rules/folds.smk"
include: "workflow/rules/experiments.smk"
include: "workflow/rules/comparison.smk"
include: "workflow/rules/viewer.smk"
include: "workflow/rules/findings.smk"
include: "workflow/rules/review.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/targets.smk"
include: "workflow/rules/prune.smk"
include: "workflow/rules/hooks.smk"


onstart:
    check_start()


onerror:
    show_quarantine_so_far()


rule all:
    """The report, everything it shows, and the run's verdict on slides in quarantine."""
    default_target: True
    input:
        "results/report/index.html",
        "results/model/MODEL_CARD.md",
        "results/tiles/summary.tsv",
        "results/conclusion.txt",
