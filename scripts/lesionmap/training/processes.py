"""Run training in one process, or start, watch and end several processes on one machine.

torch's own launcher (torchrun) is made for several machines and for restarts. It opens a port, unpickles what arrives
there, and gives a stopped process only 30 seconds. Here processes connect through a file, and the main process has all
the time it needs to save.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from lesionmap.errors import InterruptedTrainingError, LesionMapError, SettingsError, TrainingError
from lesionmap.files.records import read_json, write_json
from lesionmap.jobs.log import append_to_log, known_error
from lesionmap.network.resources import AUTO
from lesionmap.network.settings import ModelSettings
from lesionmap.training.checkpoint import StopRequest
from lesionmap.training.loop import train
from lesionmap.training.process_group import joined
from lesionmap.training.settings import TrainFiles, TrainJob, TrainMachine, TrainSettings

POLL_SECONDS = 0.1
Process = subprocess.Popen[bytes]


def train_in_processes(job: TrainJob, files: TrainFiles, machine: TrainMachine) -> None:
    """Train as :func:`lesionmap.training.loop.train` does, in as many processes as the settings ask for.

    Parameters
    ----------
    machine : TrainMachine
        Device and threads of the whole job. The processes share the threads; on GPUs, each has one of its own.

    Raises
    ------
    LesionMapError
        If :func:`lesionmap.training.loop.train` raises it in any process, if there are too few GPUs, or if a process is
        killed. All processes have then ended.
    """
    count = job.settings.processes
    if count == 1:
        train(job, files, machine)
        return
    devices = rank_devices(machine.device, count)
    threads = max(1, machine.threads // count)
    machines = [asdict(replace(machine, device=device, threads=threads)) for device in devices]
    with TemporaryDirectory(prefix="lesionmap-train-") as name:
        folder = Path(name)
        write_json(folder / "job.json", {"job": asdict(job), "files": asdict(files), "machines": machines})
        with StopRequest() as stop, _started(folder, count) as processes:
            failed = _first_failure(processes, stop)
        if failed is not None:
            raise _error_of(failed, processes, folder, files.log, stop)


def rank_devices(name: str, count: int) -> list[str]:
    """The device of each process: one GPU each, or the CPU for all (with ``auto``, if there is no GPU).

    Raises
    ------
    SettingsError
        If a GPU for each process is needed but there are too few, or if `name` is a single GPU.
    """
    n_gpus = torch.cuda.device_count()
    if name == "cpu" or (name == AUTO and not n_gpus):
        return ["cpu"] * count
    if name not in (AUTO, "cuda") or n_gpus < count:
        raise SettingsError(
            stage="train",
            finding=f"train.processes is {count} and train.device {name}, but each process needs a CUDA device of its "
            f"own, and torch finds {n_gpus} on this machine",
            remedy="set train.processes to 1, or to the number of GPUs with train.device: auto, or train.device to cpu",
        )
    return [f"cuda:{number}" for number in range(count)]


@contextmanager
def _started(folder: Path, count: int) -> Iterator[list[Process]]:
    """Start the processes; at the end of the block all are ended."""
    paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    # Communicate within this machine only: no port is open to others.
    environment = {"GLOO_SOCKET_IFNAME": "lo", **os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-m", "lesionmap.training.processes", str(folder)]
    processes: list[Process] = []
    try:
        for rank in range(count):
            started = subprocess.Popen([*command, str(rank)], stdin=subprocess.PIPE, env=environment)  # noqa: S603  # ours
            processes.append(started)
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def _first_failure(processes: Sequence[Process], stop: StopRequest) -> int | None:
    """Wait for the processes; return the rank of one that failed, or None if all succeed."""
    while True:
        codes = [process.poll() for process in processes]
        failed = next((rank for rank, code in enumerate(codes) if code), None)
        if failed is not None or None not in codes:
            return failed
        if stop.asked:
            processes[0].terminate()
        time.sleep(POLL_SECONDS)


def _error_of(rank: int, processes: Sequence[Process], folder: Path, log: str, stop: StopRequest) -> Exception:
    """The reason why a process failed: from its error file, or else from its exit code."""
    error_file, code = _error_file(folder, rank), processes[rank].returncode
    if error_file.exists():
        kind, metadata = read_json(error_file)
        return {error.__name__: error for error in LesionMapError.__subclasses__()}[kind](**metadata)
    if stop.asked:
        return InterruptedTrainingError(
            stage="train",
            finding="told to stop (SIGTERM) before the first region was read, or after the last epoch was closed",
            remedy="run again",
        )
    which = f"process {rank + 1} of {len(processes)}"
    if code < 0:
        return TrainingError(
            stage="train",
            finding=f"{which} was killed ({signal.Signals(-code).name}), as systems do when memory runs out",
            remedy="lower train.processes or train.tile_batch, or give the job more memory; run again with the same "
            "settings, and training goes on from where it was last saved",
        )
    return RuntimeError(f"{which} failed; its error is above, and in {log}")


def _error_file(folder: Path, rank: int) -> Path:
    """The file in which a process writes why it failed."""
    return folder / f"error_{rank}.json"


def main(folder: Path, rank: int) -> None:
    """Run one of the processes; `folder` contains their description, ``job.json``."""
    threading.Thread(target=_end_with_the_job, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes: the parent then ends this one
    description = read_json(folder / "job.json")
    job, files = _job(description["job"]), TrainFiles(**description["files"])
    machine, count = TrainMachine(**description["machines"][rank]), len(description["machines"])
    append_to_log(files.log, f"process {rank + 1}", logging.WARNING if rank else logging.INFO)
    try:
        with joined(folder / "meeting", rank, count, torch.device(machine.device)) as group:
            train(job, files, machine, group)
    except Exception as error:
        if known := known_error(error, files.log):
            write_json(_error_file(folder, rank), [type(known).__name__, vars(known)])
        else:
            logging.exception("unexpected error")
            traceback.print_exc()
        os._exit(1)  # a normal exit would wait for the other processes


def _job(described: dict[str, Any]) -> TrainJob:
    kinds = {"model": ModelSettings, "settings": TrainSettings}
    return TrainJob(**described | {name: kind(**described[name]) for name, kind in kinds.items()})


def _end_with_the_job() -> None:
    """End this process when its parent has ended, for whatever reason: stdin, a pipe from the parent, closes then."""
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
