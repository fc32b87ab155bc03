"""Adapter of rule infer_slide."""

from lesionmap.copies import slide_at_hand
from lesionmap.export import LesionFiles
from lesionmap.infer_settings import InferenceSettings
from lesionmap.inference import infer_slide
from lesionmap.provenance import provenance
from lesionmap.quarantine import slide_job

job = slide_job(snakemake.wildcards.slide, snakemake.log[0], snakemake.input, snakemake.output)
with job, slide_at_hand(snakemake.input.info, snakemake.config["slides"]["copies"]) as info:
    paths, settings = snakemake.input, snakemake.params.inference
    batch_size = snakemake.config["inference"]["batch_size"]
    origin = provenance(snakemake.params.code, identity=info.identity, inference=settings)
    options = InferenceSettings.of(settings, batch_size, snakemake.params.max_unreadable_fraction)
    *files, record = snakemake.output
    places = (LesionFiles(*files), record)
    infer_slide(info, paths.tissue, paths.stain, paths.model, *places, options, origin, threads=snakemake.threads)
