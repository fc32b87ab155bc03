"""Adapter of rule build_manifest."""

from lesionmap.jobs.log import job_log
from lesionmap.run.manifest import build_manifest

with job_log(snakemake.log[0]):
    build_manifest(snakemake.input, snakemake.output[0])
