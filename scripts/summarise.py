"""Adapter of rule summarise."""

from lesionmap.logs import job_log
from lesionmap.metrics import summarise

with job_log(snakemake.log[0]):
    summarise(snakemake.input, *snakemake.output, threshold=snakemake.params.threshold)
