"""Adapter of rule inspect_slide."""

from lesionmap.logs import job_log
from lesionmap.slides import SlideRow, inspect_slide

with job_log(snakemake.log[0]):
    inspect_slide(
        SlideRow(**snakemake.params.row),
        snakemake.output[0],
        needed_mpp=snakemake.params.needed_mpp,
        **snakemake.params.inspect,
    )
