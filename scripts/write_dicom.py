"""Adapter of rule write_dicom."""

from lesionmap.jobs.quarantine import slide_job
from lesionmap.lesions.dicom import write_segmentation
from lesionmap.slides.cache import cached_slide

job = slide_job(snakemake.wildcards.slide, snakemake.log[0], snakemake.input, snakemake.output)
with job, cached_slide(snakemake.input.info, snakemake.config["slides"]["copies"]) as info:
    write_segmentation(info, snakemake.input.lesions, snakemake.output[0])
