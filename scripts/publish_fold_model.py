"""Adapter of rule publish_fold_model."""

from lesionmap.jobs.log import job_log
from lesionmap.run.published_model import copy_model

with job_log(snakemake.log[0]):
    copy_model(snakemake.input[0], *snakemake.output, view=snakemake.params.view)
