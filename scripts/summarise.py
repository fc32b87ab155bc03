"""Adapter of rule summarise."""

from lesionmap.evaluation.summary import SummaryFiles, summarise
from lesionmap.jobs.log import job_log
from lesionmap.jobs.quarantine import usable
from lesionmap.metrics.bootstrap import Bootstrap

with job_log(snakemake.log[0]):
    params = snakemake.params
    summarise(
        usable(snakemake.input), SummaryFiles(*snakemake.output), Bootstrap(**params.bootstrap), params.min_lesion_um
    )
