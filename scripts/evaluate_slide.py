"""Adapter of rule evaluate_slide."""

from lesionmap.evaluation import evaluate_slide
from lesionmap.files import read_json
from lesionmap.provenance import provenance
from lesionmap.quarantine import slide_job
from lesionmap.slides import load_info

with slide_job(snakemake.wildcards.slide, snakemake.log[0], snakemake.input, snakemake.output):
    info, paths, params = load_info(snakemake.input.info), snakemake.input, snakemake.params
    origin = provenance(params.code, identity=info.identity)
    options = {
        "threshold": read_json(paths.record)["lesions"]["threshold"],
        "split": params.split,
        "provenance": origin,
    }
    evaluate_slide(info, paths.probability, paths.tissue, paths.annotation, snakemake.output[0], **options)
