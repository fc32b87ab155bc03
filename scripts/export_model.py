"""Adapter of rule export_model."""

from lesionmap.jobs.log import job_log
from lesionmap.network.onnx_export import export_model

with job_log(snakemake.log[0]):
    export_model(snakemake.input[0], *snakemake.output)
