"""Adapter of rule doctor."""

from lesionmap.doctor import examine_sheet
from lesionmap.inspection import SlideRow
from lesionmap.logs import job_log

with job_log(snakemake.log[0]):
    rows = [SlideRow(**row) for row in snakemake.params.rows]
    tables = snakemake.params.table, snakemake.params.report
    examine_sheet(rows, snakemake.params.config, *tables, threads=snakemake.threads)
