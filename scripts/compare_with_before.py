"""Adapter of rule compare_with_before."""

from lesionmap.evaluation.model_comparison import compare_with_before
from lesionmap.jobs.log import job_log
from lesionmap.jobs.quarantine import usable

with job_log(snakemake.log[0]):
    paths = snakemake.input
    files = paths.slide_table, paths.before, *snakemake.output
    compare_with_before(usable(paths.own), *files, snakemake.params.min_lesion_um)
