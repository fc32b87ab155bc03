"""Adapter of rule report_experiments."""

from lesionmap.experiments.page import write_page
from lesionmap.jobs.log import job_log

with job_log(snakemake.log[0]):
    paths, params = snakemake.input, snakemake.params
    plots = {"Metrics": paths.metrics, "Learning curves": paths.learning_curves}
    write_page(
        *(paths.summary, paths.slides, paths.folds, snakemake.output[0]),
        plots=plots,
        variants=params.variants,
        n_folds=params.n_folds,
    )
