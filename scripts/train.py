"""Adapter of rule train."""

from pathlib import Path

from lesionmap.jobs.log import job_log
from lesionmap.jobs.provenance import provenance
from lesionmap.jobs.quarantine import usable
from lesionmap.network.settings import ModelSettings
from lesionmap.tiles.settings import TileSettings
from lesionmap.training.processes import train_in_processes
from lesionmap.training.publication import training_metadata
from lesionmap.training.settings import TrainFiles, TrainJob, TrainMachine, TrainSettings

with job_log(snakemake.log[0], resumes=True):
    paths, params, config = snakemake.input, snakemake.params, snakemake.config["train"]
    weights = paths.get("backbone") or None
    origin = provenance(params.code, model=params.model | {"weights": params.weights}, train=params.train)
    metadata = training_metadata(TileSettings(**params.tiles), params.input_settings, weights, origin)
    settings = ModelSettings(**params.model), TrainSettings(**params.train)
    job = TrainJob(usable(paths.train), usable(paths.val), weights, *settings, metadata, params.patients)
    machine = TrainMachine(config["device"], config["checkpoint_minutes"], snakemake.threads)
    record = Path(snakemake.output[0])  # results/model/runs/<run>/trained.json
    files = TrainFiles(str(record), str(record.parents[2]), params.tensorboard, snakemake.log[0])
    train_in_processes(job, files, machine)
