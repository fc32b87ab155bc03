"""Adapter of rule cut_view."""

from lesionmap.jobs.provenance import provenance
from lesionmap.jobs.quarantine import in_folder, slide_job
from lesionmap.slides.cache import slide_at_hand
from lesionmap.viewer.view import ViewedFiles, cut_view

paths, params, folder = snakemake.input, snakemake.params, snakemake.output[0]
needed = (paths.info, paths.tissue, paths.probability, paths.outlines)
job = slide_job(snakemake.wildcards.slide, snakemake.log[0], needed, [in_folder(folder)])
with job, slide_at_hand(paths.info, snakemake.config["slides"]["copies"]) as info:
    origin = provenance(params.code, identity=info.identity, detail=params.detail)
    files = ViewedFiles(paths.tissue, paths.probability, paths.outlines, paths.get("annotation") or None)
    cut_view(info, files, folder, params.detail, origin, threads=snakemake.threads)
