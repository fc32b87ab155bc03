"""Adapter of rule summarise."""

from lesionmap.bootstrap import Bootstrap
from lesionmap.logs import job_log
from lesionmap.quarantine import usable
from lesionmap.summary import SummaryFiles, summarise

with job_log(snakemake.log[0]):
    params = snakemake.params
    summarise(
        usable(snakemake.input), SummaryFiles(*snakemake.output), Bootstrap(**params.bootstrap), params.min_lesion_um
    )
