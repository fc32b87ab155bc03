"""Adapter of rule prune."""

from lesionmap.jobs.log import job_log
from lesionmap.run.prune import Workflow, list_leftovers

with job_log(snakemake.log[0]):
    list_leftovers(Workflow(**snakemake.params.workflow), snakemake.params.table)
