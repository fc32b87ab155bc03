"""Adapter of rule fit_stain."""

from lesionmap.provenance import provenance
from lesionmap.quarantine import slide_job
from lesionmap.slides import load_info
from lesionmap.stain_fit import FitFiles, StainSettings, fit_slide

with slide_job(snakemake.wildcards.slide, snakemake.log[0], snakemake.input, snakemake.output):
    info, settings = load_info(snakemake.input.info), snakemake.params.stain
    origin = provenance(snakemake.params.code, identity=info.identity, stain=settings)
    fit_slide(info, snakemake.input.tissue, FitFiles(*snakemake.output), StainSettings(**settings), origin)
