"""Adapter of rule find_tissue."""

from lesionmap.jobs.quarantine import slide_job
from lesionmap.slides.cache import cached_slide
from lesionmap.tissue.detection import TissueSettings, find_tissue

job = slide_job(snakemake.wildcards.slide, snakemake.log[0], snakemake.input, snakemake.output)
with job, cached_slide(snakemake.input.info, snakemake.input.location, snakemake.config["slides"]) as info:
    find_tissue(info, snakemake.output[0], TissueSettings(**snakemake.params.tissue))
