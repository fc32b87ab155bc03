"""Adapter of rule list_quarantine."""

from lesionmap.logs import job_log
from lesionmap.losses import RunFiles, list_quarantine

with job_log(snakemake.log[0]):
    paths = snakemake.input
    list_quarantine(RunFiles(paths.records, paths.tiles, paths.outlines, paths.metrics), *snakemake.output)
