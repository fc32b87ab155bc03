"""Adapter of rule render_report."""

from lesionmap.logs import job_log
from lesionmap.report import ReportInputs, render_report

with job_log(snakemake.log[0]):
    paths, params = snakemake.input, snakemake.params
    models = paths.get("models") or None
    tables = (paths.quarantine, paths.summary, paths.slide_table, models, paths.stain_table, paths.stain_spread)
    stains = (paths.stains, paths.stain_pictures, paths.stain_thumbnails)
    slides = (paths.records, *stains, paths.outlines, paths.overlays, paths.views)
    options = {"config": params.config, "benchmarks": params.benchmarks}
    training = (paths.get("history") or None, paths.get("learning_curves") or None)
    render_report(ReportInputs(*tables, *training, *slides), *snakemake.output, **options)
