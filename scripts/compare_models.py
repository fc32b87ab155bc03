"""Adapter of rule compare_models."""

from lesionmap.bootstrap import Bootstrap
from lesionmap.logs import job_log
from lesionmap.model_comparison import compare_models
from lesionmap.quarantine import usable

with job_log(snakemake.log[0]):
    params = snakemake.params
    options = Bootstrap(**params.bootstrap), params.min_lesion_um
    compare_models(usable(snakemake.input.own), params.others, snakemake.output[0], *options)
