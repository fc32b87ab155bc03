"""Adapter of rule evaluate_slide."""

from lesionmap.evaluation.evaluate import EvaluatedFiles, Role, evaluate_slide
from lesionmap.files.records import read_json
from lesionmap.jobs.provenance import provenance
from lesionmap.jobs.quarantine import slide_job, usable
from lesionmap.slides.slide import load_info

paths, params = snakemake.input, snakemake.params
needed = [paths.info, paths.scores, paths.lesions, paths.tissue, paths.annotation]
with slide_job(snakemake.wildcards.slide, snakemake.log[0], needed, snakemake.output):
    info = load_info(paths.info)
    annotation = read_json(paths.annotation_identity)["sha256"]
    origin = provenance(params.code, identity=info.identity, annotation=annotation)
    files = EvaluatedFiles(*needed[1:], *usable(paths.second))
    role, tolerance_um = Role(**params.role), params.tolerance_um
    evaluate_slide(info, files, snakemake.output[0], role=role, tolerance_um=tolerance_um, provenance=origin)
