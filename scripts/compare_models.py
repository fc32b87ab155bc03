"""Adapter of rule compare_models."""

from lesionmap.evaluation.model_comparison import compare_models
from lesionmap.jobs.log import job_log
from lesionmap.jobs.quarantine import usable
from lesionmap.metrics.bootstrap import Bootstrap

with job_log(snakemake.log[0]):
    paths, params = snakemake.input, snakemake.params
    options = Bootstrap(**params.bootstrap), params.min_lesion_um
    compare_models(usable(paths.own), paths.slide_table, params.others, snakemake.output[0], *options)
