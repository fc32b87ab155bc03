"""Adapter of rule find_lesions."""

from lesionmap.jobs.provenance import provenance
from lesionmap.jobs.quarantine import slide_job
from lesionmap.lesions.find_lesions import LesionFiles, LesionSettings, find_lesions
from lesionmap.slides.slide import load_info

with slide_job(snakemake.wildcards.slide, snakemake.log[0], snakemake.input, snakemake.output):
    info, paths, params = load_info(snakemake.input.info), snakemake.input, snakemake.params
    origin = provenance(params.code, identity=info.identity, lesions=params.lesions)
    settings, files = LesionSettings(**params.lesions), LesionFiles(*snakemake.output)
    spread = paths.get("uncertainty") or None  # an ensemble's maps have one
    find_lesions(info, paths.scores, paths.tissue, files, settings, origin, uncertainty_path=spread)
