"""Adapter of rule plot_metrics."""

from lesionmap.cohort_figures import MetricFigures, plot_metrics
from lesionmap.logs import job_log

with job_log(snakemake.log[0]):
    plot_metrics(snakemake.input.summary, snakemake.input.slides, MetricFigures(*snakemake.output))
