"""Adapter of rule summarise."""

from lesionmap.evaluation import summarise
from lesionmap.logs import job_log

with job_log(snakemake.log[0]):
    summarise(snakemake.input, *snakemake.output, threshold=snakemake.params.threshold)
