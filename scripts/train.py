"""Adapter of rule train."""

from lesionmap.logs import job_log
from lesionmap.model import ModelSettings
from lesionmap.provenance import provenance
from lesionmap.quarantine import usable
from lesionmap.train_settings import TrainMachine, TrainSettings
from lesionmap.training import TrainFiles, TrainJob, train

with job_log(snakemake.log[0]):
    paths, params, config = snakemake.input, snakemake.params, snakemake.config["train"]
    origin = provenance(params.code, model=params.model, train=params.train)
    facts = {"tiles": params.tiles, "provenance": origin}
    network, schedule = ModelSettings(**params.model), TrainSettings(**params.train)
    stores = usable(paths.train), usable(paths.val)
    job = TrainJob(*stores, paths.get("backbone") or None, network, schedule, facts)
    machine = TrainMachine(config["device"], config["checkpoint_minutes"], snakemake.threads)
    train(job, TrainFiles(*snakemake.output, params.events), machine)
