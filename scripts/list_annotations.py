"""Adapter of rule list_annotations."""

from lesionmap.jobs.log import job_log
from lesionmap.run.manifest import list_annotations

with job_log(snakemake.log[0]):
    list_annotations(snakemake.input.first, snakemake.output[0], snakemake.input.second)
