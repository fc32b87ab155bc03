"""Adapter of rule import_annotation."""

from lesionmap.annotations.canonical import AnnotationSettings, import_annotation
from lesionmap.jobs.quarantine import slide_job
from lesionmap.slides.slide import load_info

with slide_job(snakemake.wildcards.slide, snakemake.log[0], snakemake.input, snakemake.output):
    info, params = load_info(snakemake.input.info), snakemake.params
    settings = AnnotationSettings(**params.annotations)
    import_annotation(snakemake.input.annotation, info, snakemake.output[0], settings, mask_mpp=params.mask_mpp)
