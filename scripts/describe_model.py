"""Adapter of rule describe_model."""

from lesionmap.jobs.log import job_log
from lesionmap.report.model_card import Stated, describe_model

with job_log(snakemake.log[0]):
    names = ("contact", "organ", "scanner", "hardware", "license", "classes")
    stated = Stated(**{name: snakemake.params[name] for name in names})
    describe_model(snakemake.input.model, snakemake.output[0], stated)
