"""Adapter of rule infer_slide."""

from lesionmap.export import LesionFiles
from lesionmap.inference import InferenceSettings, infer_slide
from lesionmap.provenance import provenance
from lesionmap.quarantine import slide_job
from lesionmap.slides import load_info

with slide_job(snakemake.wildcards.slide, snakemake.log[0], snakemake.input, snakemake.output):
    info, paths = load_info(snakemake.input.info), snakemake.input
    settings, limit = snakemake.params.inference, snakemake.params.max_unreadable_fraction
    origin = provenance(snakemake.params.code, identity=info.identity, inference=settings)
    files, options = LesionFiles(*snakemake.output), InferenceSettings(**settings, max_unreadable_fraction=limit)
    infer_slide(info, paths.tissue, paths.stain, paths.model, files, options, origin, threads=snakemake.threads)
