"""Adapter of rule list_quarantine."""

from lesionmap.logs import job_log
from lesionmap.losses import list_quarantine

with job_log(snakemake.log[0]):
    paths = snakemake.input
    list_quarantine(paths.records, paths.stores, [*paths.outlines, *paths.metrics], *snakemake.output)
