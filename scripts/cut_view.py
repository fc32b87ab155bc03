"""Adapter of rule cut_view."""

from lesionmap.jobs.provenance import provenance
from lesionmap.jobs.quarantine import export_job, in_folder
from lesionmap.slides.cache import cached_slide
from lesionmap.viewer.view import ViewedFiles, cut_view

paths, params, (folder, overlay) = snakemake.input, snakemake.params, snakemake.output
needed = (paths.info, paths.stain, paths.tissue, paths.probability, paths.lesions, paths.outlines)
job = export_job(snakemake.wildcards.slide, snakemake.log[0], needed, [in_folder(folder), overlay])
with job, cached_slide(paths.info, paths.location, snakemake.config["slides"]) as info:
    origin = provenance(params.code, identity=info.identity, detail=params.detail)
    maps = (paths.stain, paths.tissue, paths.probability, paths.lesions, paths.outlines)
    files = ViewedFiles(*maps, paths.get("annotation") or None)
    options = {"detail": params.detail, "provenance": origin, "threads": snakemake.threads}
    cut_view(info, files, folder, overlay, **options)
