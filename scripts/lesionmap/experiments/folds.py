"""Folds: which slides are held out together. Whoever shares a patient, or content, shares a fold."""

import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lesionmap.annotations.masks import Annotation
from lesionmap.errors import SettingsError
from lesionmap.files.records import read_table, write_table
from lesionmap.jobs.quarantine import quarantined

COLUMNS = ("slide", "patient", "site", "lesion", "fold", "folds", "seed")
ROLES = ("train", "val", "held_out")


@dataclass(frozen=True)
class FoldSlide:
    """A slide to assign.

    Parameters
    ----------
    patient, site : str
        Empty if unknown: such a slide is of a patient of its own.
    identity : str
        SHA-256 of its content; empty if it cannot be read now.
    lesion : bool
        Whether lesion is annotated on it.
    """

    slide: str
    patient: str
    site: str
    identity: str
    lesion: bool


@dataclass(frozen=True)
class FoldSettings:
    """Number of folds, and the seed by which patients who would fit several folds equally well are shared out."""

    folds: int
    seed: int


def assign_folds(
    manifest: str,
    annotations: Sequence[str],
    rows: Mapping[str, Mapping[str, str]],
    table: str,
    settings: FoldSettings,
    excluded: Collection[str] = (),
) -> None:
    """Write the table of folds. Slides that it has keep their fold, unless another number or seed is asked for.

    Parameters
    ----------
    manifest : str
        File of :func:`lesionmap.run.manifest.build_manifest`.
    annotations : sequence of str
        Canonical annotations, ``<slide>.geojson``. Slides without a usable one take part in no fold.
    rows : mapping
        ``patient`` and ``site`` of each slide, as the sheet has them.
    table : str
        TSV. A row stays when its slide leaves the sheet or cannot be read, so that it comes back to its fold.
    excluded : collection of str
        Slides whose rows go: those that were pruned.

    Raises
    ------
    SettingsError
        If there are fewer patients than folds.
    """
    identities = {row["slide"]: row["identity"] for row in read_table(manifest)}
    usable = {Path(path).stem: path for path in annotations if not quarantined(path)}
    slides = [
        FoldSlide(slide, row["patient"], row["site"], identities[slide], bool(Annotation(usable[slide]).lesions))
        for slide, row in rows.items()
        if slide in identities and slide in usable
    ]
    _check_number(slides, settings.folds)
    before = {row["slide"]: row for row in read_table(table)} if Path(table).exists() else {}
    asked = {"folds": str(settings.folds), "seed": str(settings.seed)}
    kept = {slide: row for slide, row in before.items() if asked.items() <= row.items() and slide not in excluded}
    absent = kept.keys() - {one.slide for one in slides}
    slides += [
        FoldSlide(slide, kept[slide]["patient"], kept[slide]["site"], "", kept[slide]["lesion"] == "1")
        for slide in sorted(absent)
    ]
    folds = shared_out(slides, settings, {slide: int(row["fold"]) for slide, row in kept.items()})
    for slide in sorted(kept):
        if folds[slide] != int(kept[slide]["fold"]):
            logging.warning("%s moves to fold %d, that of other slides of its patient", slide, folds[slide])
    found = [vars(one) | {"lesion": int(one.lesion), "fold": folds[one.slide]} | asked for one in slides]
    write_table(table, found, COLUMNS)


def _check_number(slides: Sequence[FoldSlide], folds: int) -> None:
    """Refuse more folds than there are patients."""
    count = len(_patients(slides))
    if count < folds:
        raise SettingsError(
            stage="assign_folds",
            finding=f"experiments.folds is {folds}, but the readable train and val slides are of {count} patients",
            remedy=f"set it to {count} or less" if count >= len(ROLES) else "add annotated slides",
        )


def shared_out(slides: Sequence[FoldSlide], settings: FoldSettings, known: Mapping[str, int]) -> dict[str, int]:
    """The fold of each slide, from 1; patients with and without lesion, and those of each site, are shared out evenly.

    Patients go one by one, those with most slides first, to the fold that has fewest slides like theirs, then fewest
    with (or without) lesion, then fewest at all.

    Parameters
    ----------
    known : mapping of str to int
        Folds that slides have already. If they contradict each other for a patient, most of its slides decide: a
        patient in two folds would be judged by a model that has seen it.
    """
    patients = _patients(slides)
    loads: Counter[tuple[int, *tuple[object, ...]]] = Counter()
    found: dict[str, int] = {}
    rng = np.random.default_rng(settings.seed)

    def put(patient: Sequence[FoldSlide], fold: int) -> None:
        found.update(dict.fromkeys((one.slide for one in patient), fold))
        loads.update(dict.fromkeys(((fold, *kind) for kind in _kinds(patient)), len(patient)))

    new = []
    for patient in patients:
        folds = Counter(known[one.slide] for one in patient if one.slide in known)
        if folds:
            put(patient, min(folds, key=lambda fold: (-folds[fold], fold)))
        else:
            new.append(patient)
    order = rng.permutation(len(new))
    for patient in sorted((new[place] for place in order), key=len, reverse=True):
        choice = rng.permutation(settings.folds) + 1
        put(patient, min(choice.tolist(), key=lambda fold: [loads[(fold, *kind)] for kind in _kinds(patient)]))
    return found


def _kinds(patient: Sequence[FoldSlide]) -> list[tuple[object, ...]]:
    """What folds are to have evenly, the most particular first."""
    lesion, site = any(one.lesion for one in patient), patient[0].site
    return [(lesion, site), (lesion,), ()]


def _patients(slides: Sequence[FoldSlide]) -> list[list[FoldSlide]]:
    """Slides that belong together, whatever their order in the sheet."""
    ordered = sorted(slides, key=lambda one: one.slide)
    keys = [[one.patient and f"patient {one.patient}", one.identity] for one in ordered]
    pairs = [(place, key) for place, both in enumerate(keys) for key in both if key]
    number = {key: len(ordered) + place for place, key in enumerate(dict.fromkeys(key for _, key in pairs))}
    ends = np.array([(place, number[key]) for place, key in pairs], dtype=np.int64).reshape(-1, 2).T
    size = len(ordered) + len(number)
    graph = coo_array((np.ones(ends.shape[1]), tuple(ends)), shape=(size, size))
    labels: NDArray[Any] = connected_components(graph, directed=False)[1][: len(ordered)]
    return [[ordered[place] for place in np.flatnonzero(labels == label)] for label in dict.fromkeys(labels.tolist())]


def read_folds(table: str) -> dict[str, int]:
    """The fold of each slide, from 1."""
    return {row["slide"]: int(row["fold"]) for row in read_table(table)}


def slides_of_fold(folds: Mapping[str, int], fold: int, n_folds: int, role: str) -> list[str]:
    """The slides that a model trains on (``train``), is chosen by (``val``), or has never seen (``held_out``).

    Each fold is held out once. The next one (after the last, the first) chooses epoch and threshold, so that what is
    judged chooses nothing.
    """
    chosen_by = fold % n_folds + 1
    wanted = {"held_out": {fold}, "val": {chosen_by}, "train": set(range(1, n_folds + 1)) - {fold, chosen_by}}[role]
    return [slide for slide, its_fold in folds.items() if its_fold in wanted]
