"""Adapter of rule write_dicom."""

from lesionmap.dicom import write_segmentation
from lesionmap.quarantine import slide_job
from lesionmap.slides import load_info

with slide_job(snakemake.wildcards.slide, snakemake.log[0], snakemake.input, snakemake.output):
    write_segmentation(load_info(snakemake.input.info), snakemake.input.lesions, snakemake.output[0])
