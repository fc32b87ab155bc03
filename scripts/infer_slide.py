"""Adapter of rule infer_slide."""

from lesionmap.inference.map_slide import infer_slide
from lesionmap.inference.settings import InferenceSettings
from lesionmap.jobs.provenance import provenance
from lesionmap.jobs.quarantine import slide_job
from lesionmap.lesions.export import LesionFiles
from lesionmap.slides.cache import slide_at_hand

job = slide_job(snakemake.wildcards.slide, snakemake.log[0], snakemake.input, snakemake.output)
with job, slide_at_hand(snakemake.input.info, snakemake.config["slides"]["copies"]) as info:
    paths, settings = snakemake.input, snakemake.params.inference
    batch_size = snakemake.config["inference"]["batch_size"]
    origin = provenance(snakemake.params.code, identity=info.identity, inference=settings)
    options = InferenceSettings.of(settings, batch_size, snakemake.params.max_unreadable_fraction)
    *files, record = snakemake.output
    places = (LesionFiles(*files), record)
    infer_slide(info, paths.tissue, paths.stain, paths.model, *places, options, origin, threads=snakemake.threads)
