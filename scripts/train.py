"""Adapter of rule train."""

from lesionmap.logs import job_log
from lesionmap.model import ModelSettings
from lesionmap.provenance import provenance
from lesionmap.quarantine import usable
from lesionmap.train_processes import train_in_processes
from lesionmap.train_settings import TrainMachine, TrainSettings
from lesionmap.training import TrainFiles, TrainJob
from lesionmap.training_facts import training_facts

with job_log(snakemake.log[0]):
    paths, params, config = snakemake.input, snakemake.params, snakemake.config["train"]
    weights = paths.get("backbone") or None
    origin = provenance(params.code, model=params.model | {"weights": params.weights}, train=params.train)
    facts, stores = training_facts(params.tiles, weights, origin), (usable(paths.train), usable(paths.val))
    job = TrainJob(*stores, weights, ModelSettings(**params.model), TrainSettings(**params.train), facts)
    machine = TrainMachine(config["device"], config["checkpoint_minutes"], snakemake.threads)
    train_in_processes(job, TrainFiles(*snakemake.output, params.events, snakemake.log[0]), machine)
