"""Adapter of rule prune_listed."""

from lesionmap.jobs.log import job_log
from lesionmap.run.prune import Workflow, remove_leftovers

with job_log(snakemake.log[0]):
    remove_leftovers(Workflow(**snakemake.params.workflow), snakemake.params.table, busy=snakemake.params.busy)
