"""Adapter of rule extract_tiles."""

from lesionmap.extraction import Extraction, extract_tiles
from lesionmap.provenance import provenance
from lesionmap.quarantine import slide_job
from lesionmap.slides import load_info
from lesionmap.tile_summary import write_record

with slide_job(snakemake.wildcards.slide, snakemake.log[0], snakemake.input, snakemake.output):
    info, paths, params = load_info(snakemake.input.info), snakemake.input, snakemake.params
    settings = Extraction.of(params.tiles, params.max_unreadable_fraction, paths.stain)
    origin = provenance(params.code, identity=info.identity, tiles=params.tiles)
    store, record = snakemake.output
    extract_tiles(info, paths.tissue, paths.annotation, store, settings, origin, snakemake.threads)
    write_record(store, record)
