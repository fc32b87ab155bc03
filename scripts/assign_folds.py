"""Adapter of checkpoint assign_folds."""

from lesionmap.experiments.folds import FoldSettings, assign_folds
from lesionmap.jobs.log import job_log

with job_log(snakemake.log[0]):
    paths, params = snakemake.input, snakemake.params
    settings = FoldSettings(**params.settings)
    assign_folds(paths.manifest, paths.annotations, params.rows, snakemake.output[0], settings, params.excluded)
