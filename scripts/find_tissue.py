"""Adapter of rule find_tissue."""

from lesionmap.jobs.quarantine import slide_job
from lesionmap.slides.cache import slide_at_hand
from lesionmap.tissue.detection import TissueSettings, find_tissue

job = slide_job(snakemake.wildcards.slide, snakemake.log[0], snakemake.input, snakemake.output)
with job, slide_at_hand(snakemake.input.info, snakemake.config["slides"]["copies"]) as info:
    find_tissue(info, snakemake.output[0], TissueSettings(**snakemake.params.tissue))
