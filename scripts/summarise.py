"""Adapter of rule summarise."""

from lesionmap.evaluation.leakage import Seen
from lesionmap.evaluation.summary import SummaryFiles, summarise
from lesionmap.files.model_metadata import load_metadata
from lesionmap.jobs.log import job_log
from lesionmap.jobs.quarantine import usable
from lesionmap.metrics.bootstrap import Bootstrap

with job_log(snakemake.log[0]):
    paths, params = snakemake.input, snakemake.params
    seen = Seen.of(load_metadata(paths.model), params.patients)
    options = Bootstrap(**params.bootstrap), params.min_lesion_um, seen
    summarise(usable(paths.slides), SummaryFiles(*snakemake.output), *options, on_leakage=params.on_leakage)
