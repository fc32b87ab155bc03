"""Adapter of rule conclude."""

from lesionmap.jobs.log import job_log
from lesionmap.run.conclusion import RunTables, conclude

with job_log(snakemake.log[0]):
    paths = snakemake.input
    tables = RunTables(paths.slides, paths.headline, paths.quarantine, paths.failed_exports, paths.checks)
    conclude(tables, snakemake.output[0], fail=snakemake.params.fail, model_notes=snakemake.params.model_notes)
