"""Adapter of rule describe_model."""

from lesionmap.jobs.log import job_log
from lesionmap.report.model_card import describe_model

with job_log(snakemake.log[0]):
    describe_model(snakemake.input.model, snakemake.output[0])
