"""Adapter of rule import_annotation."""

from lesionmap.annotations import import_annotation
from lesionmap.logs import job_log
from lesionmap.slides import load_info

with job_log(snakemake.log[0]):
    import_annotation(
        snakemake.input.annotation,
        load_info(snakemake.input.info),
        snakemake.output[0],
        classes=snakemake.params.classes,
        mask_values=snakemake.params.mask_values,
    )
