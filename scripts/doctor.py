"""Adapter of rule doctor."""

from lesionmap.jobs.log import job_log
from lesionmap.run.doctor import examine_sheet
from lesionmap.run.settings import RunSettings
from lesionmap.slides.sheet import SlideRow

with job_log(snakemake.log[0]):
    rows = [SlideRow(**row) for row in snakemake.params.rows]
    params, settings = snakemake.params, RunSettings.of(snakemake.params.config)
    options = {"threads": snakemake.threads, "model_notes": params.model_notes}
    examine_sheet(rows, settings, params.table, params.report, params.machine, **options)
