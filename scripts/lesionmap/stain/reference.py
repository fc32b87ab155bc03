"""Choose the stain reference of a cohort."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionmap.errors import ModelError, SettingsError, SlideError
from lesionmap.files.model_metadata import load_metadata
from lesionmap.files.pictures import read_png, write_png
from lesionmap.files.records import read_json, write_json, write_table
from lesionmap.jobs.quarantine import quarantined
from lesionmap.stain.profile import StainProfile, palette

CANDIDATE_COLUMNS = ["slide", "verdict", "distance_od", "p99_haematoxylin", "p99_eosin", "chosen"]
MODEL = ".safetensors"
NO_PROFILE = (OSError, ValueError, KeyError, TypeError)  # what reading something else raises


@dataclass(frozen=True)
class Candidate:
    """A slide that can be the reference: its id, stain profile, provenance, and a picture of its tissue (or None)."""

    slide: str
    profile: StainProfile
    provenance: dict[str, Any]
    picture: str | None

    def tissue(self) -> NDArray[np.uint8]:
        """Picture of its tissue, or its palette if there is none; (H, W, 3) uint8."""
        return read_png(self.picture) if self.picture else palette(self.profile)


def choose_reference(
    sources: Sequence[str], pictures: Sequence[str], output: str, picture: str, candidates: str
) -> None:
    """Choose and write the stain that all slides are normalised to.

    Of several candidates, the one whose two stains at P99 are nearest to the medians (in optical density) is chosen.

    Parameters
    ----------
    sources : sequence of str
        Fits of slides (:func:`lesionmap.stain.fit.fit_slide`), a reference's profile shipped with a model, or a model
        file.
    pictures : sequence of str
        Pictures of tissue of those slides, in the same order; none for profiles from elsewhere.
    output : str
        JSON: the reference's slide, profile and provenance. It can be shipped with a model.
    picture : str
        PNG: tissue of the reference, or its palette if there is no picture.
    candidates : str
        TSV: all candidates, their distances from the medians, and which one was chosen.

    Raises
    ------
    SettingsError
        If no source can be the reference.
    """
    found = [
        quarantined(source) or read_candidate(source, picture) for source, picture in zip_longest(sources, pictures)
    ]
    usable = [one for one in found if isinstance(one, Candidate) and one.profile.verdict == "ok"]
    if not usable:
        raise _no_reference(found)
    colours = np.array([_colours_at_p99(one.profile) for one in usable])
    distances = np.linalg.norm(colours - np.median(colours, axis=0), axis=1)
    chosen = usable[int(np.argmin(distances.round(6)))]  # two candidates alone are equally far: the first wins
    rows = [_row(one, distance, chosen) for one, distance in zip(usable, distances, strict=True)]
    write_table(candidates, rows, CANDIDATE_COLUMNS)
    write_png(picture, chosen.tissue())
    record = {"slide": chosen.slide, "profile": asdict(chosen.profile), "provenance": chosen.provenance}
    write_json(output, record)


def read_candidate(source: str, picture: str | None = None) -> Candidate:
    """Read a candidate for the reference from a fit, a profile shipped with a model, or a model file.

    Raises
    ------
    SettingsError, ModelError
        If `source` is none of these; if it is a model without such a profile.
    """
    if source.endswith(MODEL):
        model = load_metadata(source, ("stain_reference", "provenance"))
        return Candidate(f"of {source}", reference_of(source, model), model["provenance"], picture)
    try:
        record = read_json(source)
        return Candidate(record["slide"], StainProfile.of(record["profile"]), record["provenance"], picture)
    except NO_PROFILE as error:
        raise SettingsError(
            stage="choose_reference",
            finding=f"{source} is not a stain profile ({type(error).__name__}: {error})",
            remedy="set stain.reference to a slide id, auto, or a results/stain/reference/profile.json of another run",
        ) from error


def reference_of(path: str, model: dict[str, Any]) -> StainProfile:
    """The stain reference in the metadata of the model file `path`.

    Raises
    ------
    ModelError
        If it is no profile that slides can be matched to.
    """
    try:
        return StainProfile.of(model["stain_reference"])
    except NO_PROFILE as error:
        raise ModelError(
            stage="model",
            finding=f"the stain reference in {path} is not a stain profile ({type(error).__name__}: {error})",
            remedy="retrain the model of model.path, or infer with the version that trained it",
        ) from error


def _no_reference(found: Sequence[Candidate | SlideError]) -> SettingsError:
    if not found:
        finding, remedy = "there is no training slide to choose the stain reference from", "name one as stain.reference"
    elif len(found) > 1:
        finding = f"none of {len(found)} training slides has a stain that can be the reference"
        remedy = "see their verdicts in results/stain/fits/; give a profile from elsewhere as stain.reference"
    elif isinstance(found[0], SlideError):
        finding = f"the stain reference '{found[0].slide}' is in quarantine: {found[0].finding}"
        remedy = f"choose another slide as stain.reference, or: {found[0].remedy}"
    else:
        finding = f"the stain reference '{found[0].slide}' does not show two stains: {found[0].profile.verdict}"
        remedy = "choose another slide as stain.reference, or auto"
    return SettingsError(stage="choose_reference", finding=finding, remedy=remedy)


def _colours_at_p99(profile: StainProfile) -> NDArray[np.float64]:
    """Optical density of both stains at their P99, (6,)."""
    colours: NDArray[np.float64] = (np.array(profile.basis) * np.array(profile.p99)[:, None]).ravel()
    return colours


def _row(one: Candidate, distance: float, chosen: Candidate) -> dict[str, Any]:
    p99 = dict(zip(("p99_haematoxylin", "p99_eosin"), one.profile.p99, strict=True))
    row = {"slide": one.slide, "verdict": one.profile.verdict, "distance_od": float(distance)}
    return row | p99 | {"chosen": "yes" if one is chosen else ""}
