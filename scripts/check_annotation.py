"""Adapter of rule check_annotation."""

from lesionmap.annotations.placement import check_annotation
from lesionmap.jobs.quarantine import export_job
from lesionmap.slides.slide import load_info

with export_job(snakemake.wildcards.slide, snakemake.log[0], snakemake.input, snakemake.output):
    paths = snakemake.input
    check_annotation(paths.annotation, load_info(paths.info), paths.tissue, snakemake.output[0])
