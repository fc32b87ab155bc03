"""Adapter of rule compare_stains."""

from lesionmap.logs import job_log
from lesionmap.stain_cohort import compare_stains

with job_log(snakemake.log[0]):
    compare_stains(snakemake.input, *snakemake.output)
