"""Adapter of rule plot_learning_curves."""

from lesionmap.jobs.quarantine import plot_job
from lesionmap.training.learning_curves import plot_learning_curves

with plot_job(snakemake.log[0], snakemake.output):
    plot_learning_curves(snakemake.input.history, snakemake.output[0])
