"""Adapter of rule compare_variants."""

from lesionmap.experiments.table import ComparedFiles, ComparedInputs, compare_variants
from lesionmap.jobs.log import job_log

with job_log(snakemake.log[0]):
    paths, params = snakemake.input, snakemake.params
    inputs = ComparedInputs(
        *(paths.folds, paths.metrics, paths.models, paths.ensemble),
        *(params.patients, params.recipes, params.n_folds, params.benchmarks),
    )
    compare_variants(inputs, ComparedFiles(*snakemake.output), params.min_lesion_um)
