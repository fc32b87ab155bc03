"""Adapter of rule find_tissue."""

from lesionmap.logs import job_log
from lesionmap.slides import load_info
from lesionmap.tissue import TissueSettings, find_tissue

with job_log(snakemake.log[0]):
    find_tissue(load_info(snakemake.input.info), snakemake.output[0], TissueSettings(**snakemake.params.tissue))
