"""Adapter of rule extract_tiles."""

from lesionmap.extraction import Extraction, extract_tiles
from lesionmap.provenance import provenance
from lesionmap.quarantine import slide_job
from lesionmap.slides import load_info

with slide_job(snakemake.wildcards.slide, snakemake.log[0], snakemake.input, snakemake.output):
    info, tiles = load_info(snakemake.input.info), snakemake.params.tiles
    limits = {"max_unreadable_fraction": snakemake.params.max_unreadable_fraction}
    settings = Extraction.of(tiles | limits, snakemake.input.stain, snakemake.input.reference)
    origin = provenance(snakemake.params.code, identity=info.identity, tiles=tiles)
    extract_tiles(info, snakemake.input.tissue, snakemake.input.annotation, snakemake.output[0], settings, origin)
