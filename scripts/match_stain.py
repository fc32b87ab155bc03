"""Adapter of rule match_stain."""

from lesionmap.jobs.provenance import provenance
from lesionmap.jobs.quarantine import slide_job
from lesionmap.stain.match import MatchSettings, match_slide

with slide_job(snakemake.wildcards.slide, snakemake.log[0], snakemake.input, snakemake.output):
    paths, settings = snakemake.input, MatchSettings(**snakemake.params.match)
    origin = provenance(snakemake.params.code, match=snakemake.params.match)
    files = paths.fit, paths.sample, *paths.reference, snakemake.output[0]
    match_slide(snakemake.wildcards.slide, *files, settings=settings, provenance=origin)
