"""Adapter of rule find_lesions."""

from lesionmap.jobs.provenance import provenance
from lesionmap.jobs.quarantine import slide_job
from lesionmap.lesions.find_lesions import LesionFiles, LesionSettings, find_lesions
from lesionmap.slides.slide import load_info

paths, params = snakemake.input, snakemake.params
needed = [paths.info, paths.scores, paths.tissue]
with slide_job(snakemake.wildcards.slide, snakemake.log[0], needed, snakemake.output):
    info = load_info(paths.info)
    origin = provenance(params.code, identity=info.identity, lesions=params.lesions)
    settings, files = LesionSettings(**params.lesions), LesionFiles(*snakemake.output)
    spread = paths.get("uncertainty") or None  # an ensemble's maps have one
    annotation = paths.get("annotation") or None
    find_lesions(info, *needed[1:], files, settings, origin, uncertainty_path=spread, annotation=annotation)
