"""Adapter of rule inspect_slide."""

from lesionmap.inspection import InspectionSettings, SlideRow, inspect_slide
from lesionmap.logs import job_log

with job_log(snakemake.log[0], snakemake.wildcards.slide):
    row, settings = SlideRow(**snakemake.params.row), InspectionSettings(**snakemake.params.settings)
    inspect_slide(row, snakemake.output[0], settings)
