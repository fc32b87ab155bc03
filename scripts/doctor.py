"""Adapter of rule doctor."""

from lesionmap.jobs.log import job_log
from lesionmap.run.doctor import examine_sheet
from lesionmap.run.settings import RunSettings
from lesionmap.slides.sheet import SlideRow

with job_log(snakemake.log[0]):
    rows = [SlideRow(**row) for row in snakemake.params.rows]
    settings, tables = RunSettings.of(snakemake.params.config), (snakemake.params.table, snakemake.params.report)
    examine_sheet(rows, settings, *tables, threads=snakemake.threads)
