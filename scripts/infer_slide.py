"""Adapter of rule infer_slide."""

from lesionmap.inference import InferenceSettings, LesionFiles, infer_slide
from lesionmap.logs import job_log
from lesionmap.provenance import provenance
from lesionmap.slides import load_info

with job_log(snakemake.log[0]):
    info, paths = load_info(snakemake.input.info), snakemake.input
    settings = snakemake.params.inference
    origin = provenance(snakemake.params.code, identity=info.identity, inference=settings)
    files, options = LesionFiles(*snakemake.output), InferenceSettings(**settings, threads=snakemake.threads)
    infer_slide(info, paths.tissue, paths.stain, paths.model, files, options, origin)
