"""Put the model of the last finished training run where the rest of the workflow reads it."""

import logging
import shutil
from pathlib import Path

from lesionmap.errors import TrainingError
from lesionmap.files.atomic import folder_written_whole, written_whole
from lesionmap.files.model_metadata import load_metadata
from lesionmap.files.records import read_json, read_table, sha256, write_table
from lesionmap.training.best_epoch import VIEWS, judging_view

HISTORY, BEST, LAST = "history.csv", "best_{}.safetensors", "last.safetensors"


def publish_model(record: str, model: str, history: str, checkpoints: str, *, view: str) -> None:
    """Copy the files of a finished training run, and delete those of all other finished runs.

    Parameters
    ----------
    record : str
        The run's record; its files are in the same folder, the other runs beside that.
    model, history, view : str
        See :func:`copy_model`.
    checkpoints : str
        Folder to write, with the other models.

    Raises
    ------
    TrainingError
        See :func:`copy_model`.
    """
    run, names = Path(record).parent, _checked(record)
    with folder_written_whole(checkpoints) as draft:
        for name in names - {HISTORY}:
            shutil.copyfile(run / name, draft / name)
    copy_model(record, model, history, view=view)
    for other in run.parent.iterdir():
        if other != run:
            shutil.rmtree(other)
            logging.info("%s is deleted: that model is no longer in use", other)


def copy_model(record: str, model: str, history: str, *, view: str) -> None:
    """Copy the model of the best epoch of a finished training run, and its history.

    Parameters
    ----------
    record : str
        The run's record; its files are in the same folder.
    model : str
        File to write: the model of the epoch that is best by `view`, else by another view that was validated, else the
        last.
    history : str
        File to write, with a column `used`, 1 for the epoch of `model`.
    view : str
        Which map is judged (:func:`lesionmap.inference.settings.view_of`).

    Raises
    ------
    TrainingError
        If a file of the run is missing or is not the one that training wrote.
    """
    run, names = Path(record).parent, _checked(record)
    judge = judging_view(view, [name for name in VIEWS if BEST.format(name) in names])
    chosen = run / (BEST.format(judge) if judge else LAST)
    epoch = load_metadata(chosen)["epoch"]["epoch"]
    rows = [row | {"used": int(float(row["epoch"]) == epoch)} for row in read_table(run / HISTORY)]
    write_table(history, rows, list(rows[0]))
    with written_whole(model) as draft:
        shutil.copyfile(chosen, draft)
    logging.info("epoch %d is used: %s", epoch, f"the best by the {judge} view" if judge else "the last")


def _checked(record: str) -> set[str]:
    """Names of a run's files, if all are as training wrote them."""
    run, digests = Path(record).parent, dict[str, str](read_json(record)["sha256"])
    for name, digest in digests.items():
        if not (run / name).exists() or sha256(run / name) != digest:
            raise TrainingError(
                stage="publish_model",
                finding=f"{run / name} is missing, or not as training wrote it",
                remedy=f"delete the folder {run} and run again: the model is then trained again",
            )
    return set(digests)
