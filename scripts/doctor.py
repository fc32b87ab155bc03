"""Adapter of rule doctor."""

from lesionmap.jobs.log import job_log
from lesionmap.run.doctor import examine_sheet
from lesionmap.slides.sheet import SlideRow

with job_log(snakemake.log[0]):
    rows = [SlideRow(**row) for row in snakemake.params.rows]
    tables = snakemake.params.table, snakemake.params.report
    examine_sheet(rows, snakemake.params.config, *tables, threads=snakemake.threads)
