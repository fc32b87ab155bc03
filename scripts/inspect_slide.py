"""Adapter of rule inspect_slide."""

from lesionmap.jobs.log import job_log
from lesionmap.slides.cache import CacheSettings
from lesionmap.slides.inspection import InspectionSettings, inspect_slide
from lesionmap.slides.sheet import SlideRow

with job_log(snakemake.log[0], snakemake.wildcards.slide):
    row, settings = SlideRow(**snakemake.params.row), InspectionSettings(**snakemake.params.settings)
    copies, present = CacheSettings(**snakemake.config["slides"]["copies"]), snakemake.params.present[0]
    inspect_slide(row, snakemake.output[0], settings, copies, present)
