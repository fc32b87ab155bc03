"""Adapter of rule compare_models."""

from lesionmap.evaluation.model_comparison import compare_models
from lesionmap.jobs.log import job_log
from lesionmap.jobs.quarantine import usable

with job_log(snakemake.log[0]):
    paths, params = snakemake.input, snakemake.params
    compare_models(usable(paths.own), paths.slide_table, params.others, snakemake.output[0], params.min_lesion_um)
