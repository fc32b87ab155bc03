"""Adapter of rule conclude."""

from lesionmap.logs import job_log
from lesionmap.manifest import conclude

with job_log(snakemake.log[0]):
    conclude(snakemake.input.headline, snakemake.input.quarantine, snakemake.output[0], fail=snakemake.params.fail)
