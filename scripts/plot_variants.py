"""Adapter of rule plot_variants."""

from lesionmap.experiments.curves import plot_learning_curves_of_variants, plot_variants
from lesionmap.jobs.quarantine import plot_job

with plot_job(snakemake.log[0], snakemake.output):
    plot_variants(snakemake.input.summary, snakemake.output.metrics)
    plot_learning_curves_of_variants(snakemake.input.histories, snakemake.output.learning_curves)
