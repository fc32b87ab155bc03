"""Adapter of rule summarise."""

from lesionmap.evaluation import summarise
from lesionmap.logs import job_log
from lesionmap.quarantine import usable

with job_log(snakemake.log[0]):
    summarise(usable(snakemake.input), *snakemake.output)
