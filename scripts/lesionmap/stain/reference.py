"""Choose the stain reference of a cohort."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesionmap.errors import SettingsError, SlideError
from lesionmap.files.model_metadata import load_metadata
from lesionmap.files.pictures import read_png, write_png
from lesionmap.files.records import read_json, write_json, write_table
from lesionmap.jobs.quarantine import quarantined
from lesionmap.stain.profile import StainProfile, palette

CANDIDATE_COLUMNS = ["slide", "verdict", "distance_od", "p99_haematoxylin", "p99_eosin", "chosen"]
MODEL = ".safetensors"


@dataclass(frozen=True)
class Candidate:
    """A slide that may be the reference: its id, its profile, where that comes from, and a picture of its tissue."""

    slide: str
    profile: StainProfile
    provenance: dict[str, Any]
    picture: str | None

    def tissue(self) -> NDArray[np.uint8]:
        """Its tissue, or its colours where there is no tissue to show; (H, W, 3) uint8."""
        return read_png(self.picture) if self.picture else palette(self.profile)


def choose_reference(
    sources: Sequence[str], pictures: Sequence[str], output: str, picture: str, candidates: str
) -> None:
    """Write the stain that every slide is brought to.

    Of several candidates it is the one whose two stains at P99, as optical densities, are nearest to the medians.

    Parameters
    ----------
    sources : sequence of str
        Fits of slides (:func:`lesionmap.stain.fit.fit_slide`), a reference's profile that came with a model, or a
        model file.
    pictures : sequence of str
        Tissue of those slides, in the same order; none for profiles from elsewhere.
    output : str
        JSON: the reference's slide, profile and provenance. It can be shipped with a model.
    picture : str
        PNG: tissue of the reference, or its colours where there is no tissue to show.
    candidates : str
        TSV: all candidates, how far they are from the medians, and which one was chosen.

    Raises
    ------
    SettingsError
        If no source is fit to be the reference.
    """
    found = [
        quarantined(source) or read_candidate(source, picture) for source, picture in zip_longest(sources, pictures)
    ]
    usable = [one for one in found if isinstance(one, Candidate) and one.profile.verdict == "ok"]
    if not usable:
        raise _no_reference(found)
    colours = np.array([_colours_at_p99(one.profile) for one in usable])
    distances = np.linalg.norm(colours - np.median(colours, axis=0), axis=1)
    chosen = usable[int(np.argmin(distances.round(6)))]  # of two, both are as far: the first
    rows = [_row(one, distance, chosen) for one, distance in zip(usable, distances, strict=True)]
    write_table(candidates, rows, CANDIDATE_COLUMNS)
    write_png(picture, chosen.tissue())
    record = {"slide": chosen.slide, "profile": asdict(chosen.profile), "provenance": chosen.provenance}
    write_json(output, record)


def read_candidate(source: str, picture: str | None = None) -> Candidate:
    """A slide that may be the reference, from a fit, a profile that came with a model, or a model file.

    Raises
    ------
    SettingsError
        If `source` is none of these.
    """
    try:
        record = _of_model(source) if source.endswith(MODEL) else read_json(source)
        return Candidate(record["slide"], StainProfile.of(record["profile"]), record["provenance"], picture)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(
            stage="choose_reference",
            finding=f"{source} is no stain profile ({type(error).__name__}: {error})",
            remedy="train the model that is model.path anew, or infer with the version that trained it"
            if source.endswith(MODEL)
            else "set stain.reference to a slide id, auto, or a results/stain/reference/profile.json of another run",
        ) from error


def _of_model(path: str) -> dict[str, Any]:
    """What a model file says of its reference, as a reference's profile does."""
    model = load_metadata(path)
    return {"slide": f"of {path}", "profile": model["stain_reference"], "provenance": model["provenance"]}


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
