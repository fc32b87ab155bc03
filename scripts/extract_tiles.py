"""Adapter of rule extract_tiles."""

from lesionmap.jobs.provenance import provenance
from lesionmap.jobs.quarantine import slide_job
from lesionmap.slides.cache import cached_slide
from lesionmap.tiles.extraction import Extraction, extract_tiles, write_record
from lesionmap.tiles.settings import TileSettings

job = slide_job(snakemake.wildcards.slide, snakemake.log[0], snakemake.input, snakemake.output)
with job, cached_slide(snakemake.input.info, snakemake.input.location, snakemake.config["slides"]) as info:
    paths, params = snakemake.input, snakemake.params
    settings = Extraction.of(TileSettings(**params.tiles), params.max_unreadable_fraction, paths.stain)
    origin = provenance(params.code, identity=info.identity, tiles=params.tiles)
    store, record = snakemake.output
    more = {"provenance": origin, "threads": snakemake.threads, "location": paths.location}
    extract_tiles(info, paths.tissue, paths.annotation, store, settings, **more)
    write_record(store, record)
