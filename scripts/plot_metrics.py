"""Adapter of rule plot_metrics."""

from lesionmap.evaluation.plots import MetricPlots, plot_metrics
from lesionmap.jobs.quarantine import plot_job

with plot_job(snakemake.log[0], snakemake.output):
    plot_metrics(snakemake.input.summary, snakemake.input.slides, MetricPlots(*snakemake.output))
