"""Adapter of rule inspect_slide."""

from lesionmap.copies import CopySettings
from lesionmap.inspection import InspectionSettings, SlideRow, inspect_slide
from lesionmap.logs import job_log

with job_log(snakemake.log[0], snakemake.wildcards.slide):
    row, settings = SlideRow(**snakemake.params.row), InspectionSettings(**snakemake.params.settings)
    copies, present = CopySettings(**snakemake.config["slides"]["copies"]), snakemake.params.present[0]
    inspect_slide(row, snakemake.output[0], settings, copies, present)
