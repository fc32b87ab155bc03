"""Adapter of rule summarise_tiles."""

from lesionmap.logs import job_log
from lesionmap.quarantine import usable
from lesionmap.tile_summary import summarise_tiles

with job_log(snakemake.log[0]):
    summarise_tiles(usable(snakemake.input), snakemake.params.benchmarks, snakemake.output[0])
