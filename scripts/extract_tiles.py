"""Adapter of rule extract_tiles."""

from lesionmap.extraction import Extraction, extract_tiles
from lesionmap.logs import job_log
from lesionmap.provenance import provenance
from lesionmap.slides import load_info

with job_log(snakemake.log[0]):
    info, tiles = load_info(snakemake.input.info), snakemake.params.tiles
    settings = Extraction.of(tiles, snakemake.input.stain, snakemake.input.reference)
    origin = provenance(snakemake.params.code, identity=info.identity, tiles=tiles)
    extract_tiles(info, snakemake.input.tissue, snakemake.input.annotation, snakemake.output[0], settings, origin)
