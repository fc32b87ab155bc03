"""Adapter of rule list_findings."""

from lesionmap.evaluation.findings import CohortFiles, FindingsFiles, SlideFiles, list_findings
from lesionmap.jobs.log import job_log

with job_log(snakemake.log[0]):
    paths = snakemake.input
    lesions = list(zip(paths.lesions, paths.tables, strict=True))
    slides = SlideFiles(paths.records, lesions, paths.maps, paths.stains, paths.checks)
    cohort = CohortFiles(paths.metrics, paths.stain_table, paths.unreadable, paths.failed_exports)
    list_findings(slides, cohort, FindingsFiles(*snakemake.output), snakemake.params.patients)
