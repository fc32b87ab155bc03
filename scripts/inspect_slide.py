"""Adapter of rule inspect_slide."""

from lesionmap.jobs.log import job_log
from lesionmap.slides.cache import CacheSettings
from lesionmap.slides.inspection import InspectionFiles, InspectionSettings, inspect_slide
from lesionmap.slides.sheet import SlideRow

with job_log(snakemake.log[0], snakemake.wildcards.slide):
    row, settings = SlideRow(**snakemake.params.row), InspectionSettings(**snakemake.params.settings)
    copies, files = CacheSettings.of_slides(snakemake.config["slides"]), InspectionFiles(*snakemake.output)
    inspect_slide(row, files, settings, copies, planned=snakemake.params.state)
