"""Adapter of rule describe_model."""

from lesionmap.logs import job_log
from lesionmap.model_card import describe_model

with job_log(snakemake.log[0]):
    describe_model(snakemake.input.model, snakemake.output[0])
