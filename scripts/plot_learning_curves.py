"""Adapter of rule plot_learning_curves."""

from lesionmap.learning_curves import plot_learning_curves
from lesionmap.logs import job_log

with job_log(snakemake.log[0]):
    plot_learning_curves(snakemake.input.history, snakemake.output[0])
