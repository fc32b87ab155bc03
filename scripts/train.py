"""Adapter of rule train."""

from lesionmap.logs import job_log
from lesionmap.model import ModelSettings
from lesionmap.provenance import provenance
from lesionmap.quarantine import usable
from lesionmap.training import TrainJob, TrainSettings, train
from lesionmap.training_facts import training_facts

with job_log(snakemake.log[0]):
    paths, params = snakemake.input, snakemake.params
    weights = paths.get("backbone") or None
    origin = provenance(params.code, model=params.model | {"weights": params.weights}, train=params.train)
    facts = training_facts(params.tiles, weights, origin)
    stores, network = (usable(paths.train), usable(paths.val)), ModelSettings(**params.model)
    job = TrainJob(*stores, weights, network, TrainSettings(**params.train), facts)
    train(job, *snakemake.output, threads=snakemake.threads)
