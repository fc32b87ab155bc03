"""Adapter of rule write_dicom."""

from lesionmap.jobs.quarantine import export_job
from lesionmap.lesions.dicom import write_segmentation
from lesionmap.slides.cache import cached_slide

files = (snakemake.log[0], snakemake.input, snakemake.output)
job = export_job(snakemake.wildcards.slide, *files, instead="set exports.dicom to never")
with job, cached_slide(snakemake.input.info, snakemake.input.location, snakemake.config["slides"]) as info:
    write_segmentation(info, snakemake.input.lesions, snakemake.output[0])
