"""Adapter of rule import_annotation."""

from lesionmap.annotations.canonical import AnnotationSettings, import_annotation
from lesionmap.files.records import write_identity
from lesionmap.jobs.quarantine import slide_job
from lesionmap.slides.slide import load_info

with slide_job(snakemake.wildcards.slide, snakemake.log[0], snakemake.input, snakemake.output):
    info, params = load_info(snakemake.input.info), snakemake.params
    settings = AnnotationSettings(**params.annotations)
    canonical, identity = snakemake.output
    review = import_annotation(params.path, info, canonical, settings, mask_mpp=params.mask_mpp)
    write_identity(identity, canonical, review=review)
