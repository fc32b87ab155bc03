"""Adapter of rule map_slide."""

from lesionmap.inference.engines import EngineFiles, EngineSettings
from lesionmap.inference.map_slide import MapFiles, MapInputs, map_slide
from lesionmap.inference.settings import MapSettings
from lesionmap.jobs.provenance import provenance
from lesionmap.jobs.quarantine import slide_job
from lesionmap.slides.cache import cached_slide

job = slide_job(snakemake.wildcards.slide, snakemake.log[0], snakemake.input, snakemake.output)
with job, cached_slide(snakemake.input.info, snakemake.input.location, snakemake.config["slides"]) as info:
    paths, params = snakemake.input, snakemake.params
    settings = MapSettings.of(params.map, params.max_unreadable_fraction)
    engine = EngineSettings(params.map["engine"], params.map["precision"], snakemake.config["inference"]["batch_size"])
    origin = provenance(params.code, identity=info.identity, inference=params.map)
    inputs = MapInputs(paths.tissue, paths.stain, [EngineFiles(paths.model, paths.onnx, paths.check)])
    files, threads = MapFiles(*snakemake.output), snakemake.threads
    map_slide(info, inputs, files, settings, engine, provenance=origin, threads=threads)
