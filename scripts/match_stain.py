"""Adapter of rule match_stain."""

from lesionmap.jobs.provenance import provenance
from lesionmap.jobs.quarantine import slide_job
from lesionmap.stain.match import MatchFiles, MatchInputs, MatchSettings, match_slide

with slide_job(snakemake.wildcards.slide, snakemake.log[0], snakemake.input, snakemake.output):
    paths, files = snakemake.input, MatchFiles(*snakemake.output)
    inputs = MatchInputs(paths.fit, paths.sample, paths.tissue, paths.overview, *paths.reference)
    origin = provenance(snakemake.params.code, match=snakemake.params.match)
    match_slide(snakemake.wildcards.slide, inputs, files, MatchSettings(**snakemake.params.match), origin)
