"""Adapter of rule train."""

from lesionmap.jobs.log import job_log
from lesionmap.jobs.provenance import provenance
from lesionmap.jobs.quarantine import usable
from lesionmap.network.model import ModelSettings
from lesionmap.training.processes import train_in_processes
from lesionmap.training.publication import training_facts
from lesionmap.training.settings import TrainFiles, TrainJob, TrainMachine, TrainSettings

with job_log(snakemake.log[0]):
    paths, params, config = snakemake.input, snakemake.params, snakemake.config["train"]
    weights = paths.get("backbone") or None
    origin = provenance(params.code, model=params.model | {"weights": params.weights}, train=params.train)
    facts, stores = training_facts(params.tiles, weights, origin), (usable(paths.train), usable(paths.val))
    job = TrainJob(*stores, weights, ModelSettings(**params.model), TrainSettings(**params.train), facts)
    machine = TrainMachine(config["device"], config["checkpoint_minutes"], snakemake.threads)
    train_in_processes(job, TrainFiles(*snakemake.output, params.events, snakemake.log[0]), machine)
