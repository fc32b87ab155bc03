"""Adapter of rule fetch_backbone."""

from lesionmap.logs import job_log
from lesionmap.model import fetch_backbone

with job_log(snakemake.log[0]):
    fetch_backbone(snakemake.wildcards.backbone, snakemake.output[0])
