"""Adapter of rule fit_stain."""

from lesionmap.jobs.provenance import provenance
from lesionmap.jobs.quarantine import slide_job
from lesionmap.slides.cache import cached_slide
from lesionmap.stain.fit import FitFiles, StainSettings, fit_slide

job = slide_job(snakemake.wildcards.slide, snakemake.log[0], snakemake.input, snakemake.output)
with job, cached_slide(snakemake.input.info, snakemake.input.location, snakemake.config["slides"]) as info:
    settings = snakemake.params.stain
    origin = provenance(snakemake.params.code, identity=info.identity, stain=settings)
    fit_slide(info, snakemake.input.tissue, FitFiles(*snakemake.output), StainSettings(**settings), origin)
