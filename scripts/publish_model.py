"""Adapter of rule publish_model."""

from lesionmap.jobs.log import job_log
from lesionmap.run.published_model import publish_model

with job_log(snakemake.log[0]):
    publish_model(snakemake.input[0], *snakemake.output, view=snakemake.params.view)
