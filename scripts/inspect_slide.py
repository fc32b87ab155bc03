"""Adapter of rule inspect_slide."""

from lesionmap.inspection import SlideRow, inspect_slide
from lesionmap.logs import job_log

with job_log(snakemake.log[0]):
    inspect_slide(
        SlideRow(**snakemake.params.row),
        snakemake.output[0],
        needed_mpp=snakemake.params.needed_mpp,
        **snakemake.params.inspect,
    )
