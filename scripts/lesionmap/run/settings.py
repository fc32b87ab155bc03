"""The whole config as settings classes of the library, for checks of the whole run before it starts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lesionmap.annotations.canonical import AnnotationSettings
from lesionmap.inference.settings import MapSettings
from lesionmap.network.settings import ModelSettings
from lesionmap.run.config import inspection_settings, map_settings, tile_settings, train_settings
from lesionmap.slides.inspection import InspectionSettings
from lesionmap.tiles.settings import TileSettings
from lesionmap.tissue.detection import TissueSettings
from lesionmap.training.settings import TrainSettings


@dataclass(frozen=True)
class RunSettings:
    """The settings of a run, by stage.

    Parameters
    ----------
    roots : sequence of str or None
        Where slides, and redirects of servers, may lie; None: anywhere.
    model_path : str or None
        An existing model; if given, no model is trained.
    weights : str
        Initial weights of the backbone: ``imagenet``, ``none``, or a file.
    stain_reference : str
        Id of a slide, ``auto``, or a file.
    dicom : str
        Slides whose lesions are written as DICOM: ``auto``, ``always`` or ``never``.
    compares : bool
        Whether other models are compared with this run's.
    refuses_leakage : bool
        Whether a run stops if the model has seen slides that are to be evaluated.
    """

    inspection: InspectionSettings
    annotations: AnnotationSettings
    tissue: TissueSettings
    tiles: TileSettings
    map: MapSettings
    model: ModelSettings
    train: TrainSettings
    roots: Sequence[str] | None
    model_path: str | None
    weights: str
    stain_reference: str
    dicom: str
    compares: bool
    refuses_leakage: bool

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "RunSettings":
        """From a config that has passed :func:`lesionmap.run.config.check_config`."""
        model, most = config["model"], config["slides"]["max_unreadable_fraction"]
        return cls(
            inspection=InspectionSettings(**inspection_settings(config)),
            annotations=AnnotationSettings(**config["annotations"]),
            tissue=TissueSettings(**config["tissue"]),
            tiles=TileSettings(**tile_settings(config)),
            map=MapSettings.of(map_settings(config), most),
            model=ModelSettings(model["backbone"], model["norm"], model["fusion"]),
            train=TrainSettings(**train_settings(config)),
            roots=config["slides"]["roots"],
            model_path=model["path"],
            weights=model["weights"],
            stain_reference=config["stain"]["reference"],
            dicom=config["exports"]["dicom"],
            compares=bool(config["evaluation"]["compare"]),
            refuses_leakage=config["evaluation"]["on_leakage"] == "refuse",
        )

    @property
    def trains(self) -> bool:
        """Whether a model is trained."""
        return self.model_path is None
