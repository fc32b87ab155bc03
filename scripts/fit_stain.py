"""Adapter of rule fit_stain."""

from lesionmap.logs import job_log
from lesionmap.provenance import provenance
from lesionmap.slides import load_info
from lesionmap.stain import StainSettings, fit_slide

with job_log(snakemake.log[0]):
    info, settings = load_info(snakemake.input.info), snakemake.params.stain
    origin = provenance(snakemake.params.code, identity=info.identity, stain=settings)
    fit_slide(info, snakemake.input.tissue, *snakemake.output, StainSettings(**settings), origin)
