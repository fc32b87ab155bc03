"""Adapter of rule render_report."""

from lesionmap.jobs.log import job_log
from lesionmap.report.inputs import ReportInputs
from lesionmap.report.render import ReportFiles, render_report

with job_log(snakemake.log[0]):
    paths, params = snakemake.input, snakemake.params
    optional = {name: paths.get(name) or None for name in ("models", "history", "learning_curves")}
    inputs = ReportInputs(**dict(paths.items()) | optional)
    options = {name: params[name] for name in ("slides", "config", "map_mpp", "benchmarks", "model_notes")}
    render_report(inputs, ReportFiles(*snakemake.output), **options)
