"""Adapter of rule evaluate_slide."""

from lesionmap.evaluation.evaluate import EvaluatedFiles, Role, evaluate_slide
from lesionmap.jobs.provenance import provenance
from lesionmap.jobs.quarantine import slide_job
from lesionmap.slides.slide import load_info

with slide_job(snakemake.wildcards.slide, snakemake.log[0], snakemake.input, snakemake.output):
    info, paths, params = load_info(snakemake.input.info), snakemake.input, snakemake.params
    origin = provenance(params.code, identity=info.identity)
    files = EvaluatedFiles(paths.scores, paths.lesions, paths.tissue, paths.annotation)
    evaluate_slide(info, files, snakemake.output[0], role=Role(**params.role), provenance=origin)
