"""Adapter of rule map_slide."""

from lesionmap.inference.map_slide import MapFiles, MapInputs, map_slide
from lesionmap.inference.settings import MapSettings
from lesionmap.jobs.provenance import provenance
from lesionmap.jobs.quarantine import slide_job
from lesionmap.slides.cache import cached_slide

job = slide_job(snakemake.wildcards.slide, snakemake.log[0], snakemake.input, snakemake.output)
with job, cached_slide(snakemake.input.info, snakemake.input.location, snakemake.config["slides"]) as info:
    paths, params = snakemake.input, snakemake.params
    settings = MapSettings.of(params.map, snakemake.config["inference"]["batch_size"], params.max_unreadable_fraction)
    origin = provenance(params.code, identity=info.identity, inference=params.map)
    inputs = MapInputs(paths.tissue, paths.stain, paths.model)
    map_slide(info, inputs, MapFiles(*snakemake.output), settings, provenance=origin, threads=snakemake.threads)
