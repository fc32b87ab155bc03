"""Adapter of rule summarise_tiles."""

from lesionmap.jobs.log import job_log
from lesionmap.jobs.quarantine import usable
from lesionmap.tiles.summary import summarise_tiles

with job_log(snakemake.log[0]):
    summarise_tiles(usable(snakemake.input), snakemake.params.benchmarks, snakemake.output[0])
