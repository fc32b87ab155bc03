"""Adapter of rule inspect_slide."""

from lesionmap.inspection import InspectionSettings, SlideRow, inspect_slide
from lesionmap.logs import job_log

with job_log(snakemake.log[0]):
    settings = InspectionSettings(**snakemake.params.slides, needed_mpp=snakemake.params.needed_mpp)
    inspect_slide(SlideRow(**snakemake.params.row), snakemake.output[0], settings)
