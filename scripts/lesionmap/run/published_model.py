"""Put the model of the last finished training run where the rest of the workflow reads it."""

import logging
import shutil
from pathlib import Path

from lesionmap.errors import TrainingError
from lesionmap.files.atomic import folder_written_whole, written_whole
from lesionmap.files.records import read_json, sha256

HISTORY, BEST = "history.csv", "best.safetensors"


def publish_model(record: str, model: str, history: str, checkpoints: str) -> None:
    """Copy the files of a finished training run, and delete those of all other finished runs.

    Parameters
    ----------
    record : str
        The run's record; its files are in the same folder, the other runs beside that.
    model, history, checkpoints : str
        Files and folder to write.

    Raises
    ------
    TrainingError
        If a file of the run is missing or is not the one that training wrote.
    """
    run = Path(record).parent
    digests: dict[str, str] = read_json(record)["sha256"]
    for name, digest in digests.items():
        if not (run / name).exists() or sha256(run / name) != digest:
            raise TrainingError(
                stage="publish_model",
                finding=f"{run / name} is missing, or not as training wrote it",
                remedy=f"delete the folder {run} and run again: the model is then trained again",
            )
    with folder_written_whole(checkpoints) as draft:
        for name in digests.keys() - {HISTORY}:
            shutil.copyfile(run / name, draft / name)
    for name, target in ((HISTORY, history), (BEST, model)):
        with written_whole(target) as draft:
            shutil.copyfile(run / name, draft)
    for other in run.parent.iterdir():
        if other != run:
            shutil.rmtree(other)
            logging.info("%s is deleted: that model is no longer in use", other)
