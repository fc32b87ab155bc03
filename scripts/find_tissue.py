"""Adapter of rule find_tissue."""

from lesionmap.quarantine import slide_job
from lesionmap.slides import load_info
from lesionmap.tissue import TissueSettings, find_tissue

with slide_job(snakemake.wildcards.slide, snakemake.log[0], snakemake.input, snakemake.output):
    find_tissue(load_info(snakemake.input.info), snakemake.output[0], TissueSettings(**snakemake.params.tissue))
