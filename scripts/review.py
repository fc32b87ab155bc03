"""Adapter of rule review."""

from lesionmap.jobs.log import job_log
from lesionmap.review.folder import ReviewInputs, write_review

with job_log(snakemake.log[0]):
    write_review(ReviewInputs(**dict(snakemake.input.items())), snakemake.params.folder)
