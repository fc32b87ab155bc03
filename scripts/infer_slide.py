"""Adapter of rule infer_slide."""

from lesionmap.export import LesionFiles
from lesionmap.infer_settings import InferenceSettings
from lesionmap.inference import infer_slide
from lesionmap.provenance import provenance
from lesionmap.quarantine import slide_job
from lesionmap.slides import load_info

with slide_job(snakemake.wildcards.slide, snakemake.log[0], snakemake.input, snakemake.output):
    info, paths = load_info(snakemake.input.info), snakemake.input
    settings, batch_size = snakemake.params.inference, snakemake.config["inference"]["batch_size"]
    origin = provenance(snakemake.params.code, identity=info.identity, inference=settings)
    options = InferenceSettings.of(settings, batch_size, snakemake.params.max_unreadable_fraction)
    *files, record = snakemake.output
    places = (LesionFiles(*files), record)
    infer_slide(info, paths.tissue, paths.stain, paths.model, *places, options, origin, threads=snakemake.threads)
