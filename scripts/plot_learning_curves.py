"""Adapter of rule plot_learning_curves."""

from lesionmap.jobs.log import job_log
from lesionmap.training.learning_curves import plot_learning_curves

with job_log(snakemake.log[0]):
    plot_learning_curves(snakemake.input.history, snakemake.output[0])
