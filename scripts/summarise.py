"""Adapter of rule summarise."""

from lesionmap.evaluation.summary import SummaryFiles, summarise
from lesionmap.jobs.log import job_log
from lesionmap.jobs.quarantine import usable

with job_log(snakemake.log[0]):
    summarise(usable(snakemake.input), SummaryFiles(*snakemake.output), snakemake.params.min_lesion_um)
