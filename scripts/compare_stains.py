"""Adapter of rule compare_stains."""

from lesionmap.jobs.log import job_log
from lesionmap.stain.comparison import compare_stains

with job_log(snakemake.log[0]):
    compare_stains(snakemake.input.matches, *snakemake.output)
