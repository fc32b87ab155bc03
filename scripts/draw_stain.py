"""Adapter of rule draw_stain."""

from lesionmap.jobs.quarantine import export_job
from lesionmap.stain.plots import PlotFiles, draw_stain

with export_job(snakemake.wildcards.slide, snakemake.log[0], snakemake.input, snakemake.output):
    paths = snakemake.input
    files = PlotFiles(paths.match, paths.sample, paths.tissue, paths.overview, *paths.reference_tissue)
    draw_stain(files, *snakemake.output)
