"""Adapter of rule summarise."""

from lesionmap.evaluation.groups import group_values
from lesionmap.evaluation.leakage import Seen
from lesionmap.evaluation.summary import SummaryFiles, summarise
from lesionmap.files.model_metadata import load_metadata
from lesionmap.jobs.log import job_log
from lesionmap.jobs.quarantine import usable

with job_log(snakemake.log[0]):
    paths, params = snakemake.input, snakemake.params
    seen = Seen.of(load_metadata(paths.model), params.patients)
    files = SummaryFiles(*snakemake.output)
    groups = group_values(params.groups, params.group_columns, usable(paths.stains))
    options = {name: params[name] for name in ("on_leakage", "external")}
    summarise(usable(paths.slides), files, params.min_lesion_um, seen, groups=groups, **options)
