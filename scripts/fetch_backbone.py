"""Adapter of rule fetch_backbone."""

from lesionmap.jobs.log import job_log
from lesionmap.network.backbone import fetch_backbone

with job_log(snakemake.log[0]):
    fetch_backbone(snakemake.wildcards.backbone, snakemake.output[0])
