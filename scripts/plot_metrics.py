"""Adapter of rule plot_metrics."""

from lesionmap.evaluation.plots import MetricPlots, plot_metrics
from lesionmap.jobs.log import job_log

with job_log(snakemake.log[0]):
    plot_metrics(snakemake.input.summary, snakemake.input.slides, MetricPlots(*snakemake.output))
