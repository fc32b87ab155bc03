"""Save a finished run: its models, with all the metadata that another facility needs to use them, and its history."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from lesionmap.annotations.classes import IGNORE, LESION, STORED_CLASSES
from lesionmap.errors import ModelError
from lesionmap.files.model_metadata import load_metadata, patient_digest
from lesionmap.files.records import sha256, write_json, write_table
from lesionmap.network.model import LesionFPN
from lesionmap.network.model_file import save_model
from lesionmap.tiles.settings import TileSettings
from lesionmap.training.best_epoch import best_epochs
from lesionmap.training.checkpoint import RunState
from lesionmap.training.dataset import RegionDataset
from lesionmap.training.settings import TrainFiles, TrainJob

THRESHOLD = 0.5  # claim 8; used for the validation metrics, and the default of inference.threshold
LICENCE = (
    "LesionMap itself is under the MIT licence. These weights are not covered by it: they derive from the training "
    "slides and, where the backbone was pretrained, from its weights (torchvision's were trained on ImageNet, which is "
    "licensed for research). Whoever trained the model decides, within those terms, how it may be passed on."
)
INTENDED_USE = (
    "Research only: reference data that show where on a slide of haematoxylin and eosin to look. "
    "Not a diagnostic device."
)


def save_run(
    job: TrainJob,
    files: TrainFiles,
    model: LesionFPN,
    state: RunState,
    *,
    run: str,
    regions: RegionDataset,
    val_regions: RegionDataset,
) -> None:
    """Write the models of the last epoch and of the best by each view, and the history of all epochs.

    Parameters
    ----------
    run : str
        Digest of all that determines the weights; part of the models' metadata.
    """
    training = {store.slide: store.identity for store in regions.stores if len(store.used)}
    validation = {store.slide: store.identity for store in val_regions.stores}
    patients = {slide: patient for slide in (*training, *validation) if (patient := job.patients.get(slide))}
    metadata = job.metadata | {
        "run": run,
        "stain_reference": regions.stores[0].stain_reference,
        "training_slides": training,
        "validation_slides": validation,
        "patients": {slide: patient_digest(patient) for slide, patient in patients.items()},
    }
    for path in (files.last, *files.all_best):
        path.unlink(missing_ok=True)
    last = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for view, index in best_epochs(state.rows).items():
        model.load_state_dict(state.best[view])
        save_model(files.best(view), model, job.network, metadata | {"epoch": state.rows[index], "chosen_by": view})
    write_table(files.history, state.rows, list(state.rows[0]))
    model.load_state_dict(last)
    save_model(files.last, model, job.network, metadata | {"epoch": state.rows[-1]})  # with it, the run is whole


def is_saved(files: TrainFiles, run: str) -> bool:
    """Whether the files are those of this run, and whole."""
    try:
        return load_metadata(files.last).get("run") == run and files.history.exists()
    except ModelError:
        return False


def write_record(files: TrainFiles, run: str) -> None:
    """Write the digests of the run's files; equal models and histories give equal bytes."""
    paths = (*files.all_best, files.last, files.history)
    write_json(files.record, {"run": run, "sha256": {path.name: sha256(path) for path in paths}})


def training_metadata(
    tiles: TileSettings, input_settings: dict[str, Any], weights: str | None, provenance: dict[str, Any]
) -> dict[str, Any]:
    """Model metadata that is known before training starts; JSON-serialisable.

    Parameters
    ----------
    input_settings : dict
        From :func:`lesionmap.run.config.input_settings`: how the images of slides were made.
    weights : str or None
        File with the initial weights of the backbone.
    provenance : dict
        From :func:`lesionmap.jobs.provenance.provenance`, with the config sections ``model`` and ``train``.
    """
    spec = tiles.spec
    return {
        "classes": {name: code for code, name in enumerate(STORED_CLASSES)} | {"ignore": IGNORE},
        "target": STORED_CLASSES[LESION],
        "threshold": THRESHOLD,
        "tiles": asdict(tiles),
        "input": input_settings,
        "mpp": {"high": spec.mpp, "low": spec.low_mpp},
        "backbone_weights": {"file": Path(weights).name, "sha256": sha256(weights)} if weights else None,
        "licence": LICENCE,
        "intended_use": INTENDED_USE,
        "provenance": provenance,
    }
