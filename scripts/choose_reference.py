"""Adapter of rule choose_reference."""

from lesionmap.jobs.log import job_log
from lesionmap.stain.reference import choose_reference

with job_log(snakemake.log[0]):
    sources = snakemake.input.fits or [snakemake.input.file]
    choose_reference(sources, snakemake.input.pictures, *snakemake.output)
