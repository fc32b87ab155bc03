"""From a probability map to the lesions of a slide: threshold, postprocessing, map, outlines, table, record."""

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionmap.files.records import write_json
from lesionmap.geometry.resampling import block_max
from lesionmap.jobs.quarantine import quarantined
from lesionmap.lesions.export import UNCERTAINTY, write_lesions
from lesionmap.lesions.judging import judge_lesions
from lesionmap.lesions.postprocessing import Postprocessing, postprocessed
from lesionmap.maps.map_file import MapFile
from lesionmap.maps.ome_tiff import MapNotes, write_map
from lesionmap.maps.on_disk import Rows, on_disk, strips
from lesionmap.maps.probability import chosen_threshold, first_positive
from lesionmap.slides.slide import SlideInfo
from lesionmap.tissue.mask import TissueMask
from lesionmap.version import VERSION

STAGE = "find_lesions"
MODEL_TRAINING = "model_training"
SHORT = 12
MEANING = {UNCERTAINTY: "mean, over the pixels of a lesion, of the standard deviation of the models' probabilities"}


@dataclass(frozen=True)
class LesionSettings:
    """Settings that turn a map into lesions; names and defaults as in the config section ``inference``.

    Parameters
    ----------
    threshold : float or "validation"
        Probability from which a pixel counts as lesion; "validation": the best one on the model's validation slides.
    smoothing_um, min_lesion_area_um2 : float
        See :class:`lesionmap.lesions.postprocessing.Postprocessing`.
    """

    threshold: float | str = 0.5
    smoothing_um: float = 0
    min_lesion_area_um2: float = 0


@dataclass(frozen=True)
class LesionFiles:
    """Where one slide's lesions are written: binary map (OME-TIFF), outlines (GeoJSON), table (TSV), record (JSON)."""

    lesions: str
    outlines: str
    table: str
    record: str


def find_lesions(
    info: SlideInfo,
    scores_path: str,
    tissue_path: str,
    files: LesionFiles,
    settings: LesionSettings,
    provenance: dict[str, Any],
    *,
    uncertainty_path: str | None = None,
    annotation: str | None = None,
) -> None:
    """Find the lesions of a slide in its probability map; the network is not needed.

    Parameters
    ----------
    scores_path : str
        The map's scores, from :func:`lesionmap.inference.map_slide.map_slide`.
    tissue_path : str
        The slide's tissue mask.
    provenance : dict
        Provenance of this step; that of the map is added.
    uncertainty_path : str, optional
        The spread between the models of an ensemble, from the same function.
    annotation : str, optional
        The slide's canonical annotation; one in quarantine is left out. Only the lesions' verdicts depend on it.

    Raises
    ------
    ModelError
        If the model should provide the threshold, but has none.
    """
    folder = Path(files.record).parent
    of_models = MapFile(uncertainty_path) if uncertainty_path else nullcontext()
    with MapFile(scores_path) as mapped, of_models as spread:
        threshold = chosen_threshold(settings.threshold, mapped.metadata["validated_threshold"], STAGE)
        of_map = dict(mapped.metadata["provenance"])
        provenance = provenance | {MODEL_TRAINING: of_map.pop(MODEL_TRAINING), "map": of_map}
        metadata = {"unreadable": mapped.metadata["unreadable"], "threshold": threshold, "provenance": provenance}
        lesions = above(mapped, threshold, folder)
        steps = Postprocessing(settings.smoothing_um, settings.min_lesion_area_um2)
        tissue, scale = TissueMask(tissue_path, info), mapped.mpp / info.mpp
        lesions, areas = postprocessed(
            lesions, steps, mapped.mpp, folder, lambda found: tissue.clear_background(found, scale)
        )
        notes = MapNotes(info.slide, "lesion", mapped.mpp, {"frame": mapped.metadata["frame"], **metadata})
        write_map(files.lesions, lesions, notes, block_max)
        judged = judge_lesions(files.lesions, annotation, info) if annotation and not quarantined(annotation) else None
        verdicts, annotated = judged or (None, None)
        n, area_mm2 = write_lesions(
            *(files.outlines, files.table, files.lesions, mapped, spread),
            info=info,
            metadata=metadata | ({"annotated_lesions": annotated} if judged else {}),
            origin={"source": f"LesionMap {VERSION}", "model": _short(of_map["model"])},
            verdicts=verdicts,
        )
    found = {"slide": info.slide, "threshold": threshold, "n": n, **areas} | (MEANING if spread else {})
    found |= {"tissue_mm2": round(tissue.area_mm2(info.mpp), 6), "annotated": annotated}
    found |= {"verdicts": verdicts and verdicts.counts(), "provenance": provenance}
    write_json(files.record, found)
    logging.info("%s: %d lesions, %.3f mm²", info.slide, n, area_mm2)


def _short(sha256: str | Sequence[str]) -> str:
    """The beginning of a model file's SHA-256, by which its outlines name it; of an ensemble, of each."""
    return ", ".join(one[:SHORT] for one in ([sha256] if isinstance(sha256, str) else sha256))


def above(scores: Rows, threshold: float, folder: Path) -> NDArray[np.bool_]:
    """Pixels of a map, (H, W), that reach a threshold; (H, W) bool on the disk of `folder`."""
    lesions, least = on_disk(scores.shape, np.bool_, folder), first_positive(threshold)
    for part in strips(scores.shape[0]):
        lesions[part] = scores[part] >= least
    return lesions
