"""What a run knows of what guidelines ask: facts of its slides, model and settings, as its own files have them."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lesionmap.annotations.classes import LESION, STORED_CLASSES
from lesionmap.files.records import read_table
from lesionmap.formatting import counted
from lesionmap.report.slides import SlideReport

UNKNOWN = ("", "NA")  # patients, as the table of slides has them
IN_WORDS = {"low": "low-resolution", "high": "high-resolution", "fused": "fused"}


@dataclass(frozen=True)
class Fact:
    """Something that the run knows.

    Parameters
    ----------
    whole : bool
        Whether it is all that was asked for.
    """

    text: str
    whole: bool = True


@dataclass(frozen=True)
class Run:
    """What the facts are taken from.

    Parameters
    ----------
    content : mapping
        From :func:`lesionmap.report.cohort.cohort_content`.
    config : mapping
        The run's config.
    model : mapping
        Metadata of the model file.
    card : mapping
        From :func:`lesionmap.report.model_card.card_metadata`.
    results : Path
        Folder that holds ``metrics`` and, if they were made, ``experiments``.
    map_mpp : float
        Resolution of the lesion maps, µm/px.
    """

    content: Mapping[str, Any]
    config: Mapping[str, Any]
    model: Mapping[str, Any]
    card: Mapping[str, Any]
    results: Path
    map_mpp: float

    @property
    def slides(self) -> Sequence[SlideReport]:
        """All mapped slides."""
        slides: Sequence[SlideReport] = self.content["slides"]
        return slides

    @property
    def groups(self) -> Mapping[str, Mapping[str, Any]]:
        """Summaries of the evaluated splits, and of leaked slides."""
        groups: Mapping[str, Mapping[str, Any]] = self.content["summary"]["splits"]
        return groups

    @property
    def lead(self) -> Mapping[str, Any] | None:
        """Summary of the first split that is independent of the model; None if there is none."""
        return self.groups[self.content["lead"]] if self.content["lead"] else None

    @property
    def training(self) -> Mapping[str, Any]:
        """Settings that the model was trained with; empty if its file does not record them."""
        settings: Mapping[str, Any] = self.model.get("provenance", {}).get("train", {})
        return settings

    @property
    def patients_known(self) -> list[tuple[str, bool]]:
        """Split of each judged slide that is not leaked, and whether the sheet names its patient."""
        judged = [(slide.split, slide.metrics) for slide in self.slides if slide.metrics and not slide.leaked]
        return [(split, row["patient"] not in UNKNOWN) for split, row in judged]

    @property
    def model_patients_known(self) -> list[bool]:
        """Whether the model file records the patient, for each slide that the model has seen."""
        seen = [slide for name in ("training_slides", "validation_slides") for slide in self.model.get(name, {})]
        return [slide in self.model.get("patients", {}) for slide in seen]

    def table(self, name: str) -> list[dict[str, str]]:
        """Rows of a table in the results that not every run has; empty without it."""
        path = self.results / name
        return read_table(path) if path.is_file() else []


Answer = Callable[[Run], Fact | None]


def _listed(counts: Mapping[Any, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _unknown(known: Sequence[bool], of: str) -> str:
    return f"{known.count(False)} of {len(known)} {of}"


def _scanners(run: Run) -> Fact | None:
    splits = {slide.split: None for slide in run.slides}
    makers = {
        split: Counter(str(slide.info["vendor"] or "unknown maker") for slide in run.slides if slide.split == split)
        for split in splits
    }
    sizes = sorted({round(slide.info["mpp"], 3) for slide in run.slides})
    named = ". ".join(f"{split.capitalize()}: {_listed(counts)}" for split, counts in makers.items())
    return Fact(f"{named}. µm/px of the slides: {', '.join(f'{mpp:g}' for mpp in sizes)}.") if sizes else None


def _partitions(run: Run) -> Fact | None:
    counts = {split: count for split, count in run.content["split_counts"].items() if count}
    named = ", ".join(f"{split} {count}" for split, count in counts.items())
    return Fact(f"Mapped slides of each split, as the slide sheet names it: {named}.") if counts else None


def _quarantined(run: Run) -> dict[str, str]:
    """Stage that refused each slide in quarantine first."""
    return {row["slide"]: row["stage"] for row in reversed(run.content["quarantine"])}


def _exclusion(run: Run) -> Fact:
    refused = _quarantined(run)
    stages = f" ({_listed(Counter(refused.values()))})" if refused else ""
    stain = ", or that do not show haematoxylin and eosin" if run.config["stain"]["fallback"] == "fail" else ""
    return Fact(
        "A slide that a stage cannot use (unreadable, damaged, too coarse, without tissue, with an annotation that "
        f"cannot be read{stain}) is left out, with stage, reason and remedy: in this run "
        f"{counted(len(refused), 'slide')}{stages}."
    )


def _missing_data(run: Run) -> Fact:
    lost = sum(any("cannot be read" in note for note in slide.notes) for slide in run.slides)
    return Fact(
        f"{counted(len(_quarantined(run)), 'slide')} in quarantine, "
        f"{counted(len(run.content['failed_exports']), 'failed export')}. Parts of {counted(lost, 'mapped slide')} "
        "cannot be read: they have no map and are not judged. Nothing is imputed."
    )


def _flow(run: Run) -> Fact:
    mapped, refused = {slide.slide for slide in run.slides}, set(_quarantined(run))
    judged = sum(slide.metrics is not None for slide in run.slides)
    return Fact(
        f"Of {counted(len(mapped | refused), 'slide')} in the sheet, {len(mapped)} were mapped, {judged} of these were "
        f"held against an annotation. In quarantine: {len(refused)}."
    )


def _preprocessing(run: Run) -> Fact | None:
    if not run.slides:
        return None
    stain, colours = run.config["stain"], "sRGB by ICC profile" if run.config["slides"]["apply_icc"] else "as scanned"
    return Fact(
        f"Stain separation: {stain['method']}. Stains matched to those of {run.slides[0].stain['reference_slide']}, "
        f"white point {stain['white_point']}, colours {colours}. Maps read at {run.map_mpp:g} µm/px."
    )


def _subsets(run: Run) -> Fact | None:
    least, most = run.model.get("tiles", {}).get("min_tissue_fraction"), run.training.get("leave_out_above")
    if least is None or most is None:
        return None
    limits = ", ".join(f"{name} {share:g}" for name, share in most.items())
    return Fact(
        f"Training regions without annotation and with less than {least:g} of tissue were left out, and those with "
        f"larger shares than: {limits}."
    )


def _reference_standard(run: Run) -> Fact | None:
    if not run.groups:
        return None
    classes, values = run.config["annotations"]["classes"], run.config["annotations"]["mask_values"]
    labels = {name or "(no name)": label for name, label in classes.items()}
    labels |= {f"{value} in masks": label for value, label in values.items()}
    names = ", ".join(name for name, label in labels.items() if label == STORED_CLASSES[LESION])
    return Fact(f"Outlines or masks. Lesion is what these call: {names}. All other tissue is not lesion.")


def _annotation_formats(run: Run) -> Fact | None:
    formats = Counter(slide.annotation_format for slide in run.slides if slide.annotation_format)
    return Fact(f"Formats of the annotations: {_listed(formats)}.") if formats else None


def _folds(run: Run) -> Fact | None:
    asked = run.config["experiments"]
    if not run.table("experiments/folds.tsv"):
        return None
    seeds = ", ".join(map(str, asked["seeds"]))
    return Fact(f"Experiments: {asked['folds']} folds, in which no patient is in two; seeds {seeds}.")


def _patient_level(run: Run) -> Fact | None:
    if run.lead is None or "training_slides" not in run.model:
        return None
    split = run.content["lead"]
    known = [known for name, known in run.patients_known if name == split], run.model_patients_known
    left_out = run.groups.get("leaked", {}).get("slides", 0)
    others = f" Left out as leaked: {counted(left_out, 'slide')}." if left_out else ""
    if all(map(all, known)):
        return Fact(f"By patient: the model has seen no slide of a patient of the {split} slides.{others}")
    lacking = f"{_unknown(known[0], f'{split} slides')} and of {_unknown(known[1], 'slides of the model')}"
    return Fact(f"By the content of slides. The patient is unknown of {lacking}.{others}", whole=False)


def _numbers(run: Run) -> Fact | None:
    names = {"training_slides": "training slide", "validation_slides": "validation slide"}
    of_model = [
        f"{counted(len(run.model[key]), name)} ({run.card['patients'][key]})"
        for key, name in names.items()
        if key in run.model
    ]
    judged = [
        f"{name.capitalize()}: {counted(found['slides'], 'slide')} of {counted(found['patients'], 'patient')}, "
        f"{found['slides_with_lesion']} with lesion"
        for name, found in run.groups.items()
    ]
    model = [f"Model: {', '.join(of_model)}"] if of_model else []
    alone = not all(known for _, known in run.patients_known)
    note = ["A slide without a patient in the sheet counts as a patient of its own"] if alone else []
    whole = bool(model and judged) and not alone and all(run.model_patients_known)
    return Fact(". ".join([*model, *judged, *note]) + ".", whole) if model or judged else None


def _network(run: Run) -> Fact:
    form = run.model["architecture"]
    return Fact(
        f"Feature pyramid on {form['backbone']}, normalisation {form['norm']}, {run.card['file']['numbers']:,} "
        "numbers in the file. Input: RGB of a stain-normalised tile. Output: one logit per pixel."
    )


def _prediction(run: Run) -> Fact:
    settings = run.config["inference"]
    return Fact(
        f"A probability per pixel at {run.map_mpp:g} µm/px, whose outlines from the threshold on are the lesions. "
        f"Overlap of tiles {settings['overlap']:g}, flips {'averaged' if settings['flips'] else 'not used'}, refined "
        f"regions: {settings['refine']}."
    )


def _image_only(_: Run) -> Fact:
    return Fact("The pixels of the slide are the only input. A program reads them; no clinical variable enters.")


def _software(run: Run) -> Fact:
    versions = ", ".join(f"{name} {version}" for name, version in run.content["versions"].items())
    trained = run.model.get("provenance", {}).get("software")
    return Fact(f"LesionMap {run.content['version']}, {versions}.{f' Trained with {trained}.' if trained else ''}")


def _code(run: Run) -> Fact:
    commit = f", commit {run.content['commit']}" if run.content["commit"] else ""
    return Fact(f"LesionMap {run.content['version']}{commit}, under the MIT licence.")


def _settings(_: Run) -> Fact:
    return Fact("The report holds all settings of the run, and the methods as text.")


def _model_file(run: Run) -> Fact:
    return Fact(f"SHA-256 of the model file: {run.card['file']['sha256']}.")


def _initialisation(run: Run) -> Fact | None:
    if "backbone_weights" not in run.model or "seed" not in run.training:
        return None
    weights = run.model["backbone_weights"]
    start = f"{weights.get('file')}, SHA-256 {weights.get('sha256')}" if weights else "random weights"
    return Fact(f"Backbone from {start}. All other weights are random, seed {run.training['seed']}.")


def _training(run: Run) -> Fact | None:
    if not run.training:
        return None
    settings = {name: _listed(value) if isinstance(value, dict) else value for name, value in run.training.items()}
    return Fact(f"Adam, focal loss. {', '.join(f'{name}: {value}' for name, value in settings.items())}.")


def _model_choice(run: Run) -> Fact | None:
    epoch, view = run.model.get("epoch", {}).get("epoch"), run.model.get("chosen_by")
    if epoch is None:
        return None
    slides = counted(len(run.model.get("validation_slides", {})), "validation slide")
    lowest = f"the one with the lowest loss of the {IN_WORDS.get(str(view), view)} map on {slides}"
    return Fact(f"Epoch {epoch}, {lowest if view else 'the last: there were no validation slides'}.")


def _threshold(run: Run) -> Fact | None:
    used = next((slide.threshold for slide in run.slides), None)
    if used is None:
        return None
    if run.config["inference"]["threshold"] == "validation":
        return Fact(f"Lesion from a probability of {used:g} on: the best Dice on the validation slides.")
    return Fact(f"Lesion from a probability of {used:g} on, set before the run (inference.threshold).", whole=False)


def _ensemble(run: Run) -> Fact:
    if run.config["experiments"]["ensemble"] and run.table("experiments/table.tsv"):
        return Fact("Experiments: test and inference slides are also mapped with the mean of the folds' models.")
    return Fact("None: each map is of one network.")


def _imbalance(run: Run) -> Fact | None:
    alpha, gamma = run.training.get("focal_alpha"), run.training.get("focal_gamma")
    if alpha is None or gamma is None:
        return None
    return Fact(f"Focal loss: weight {alpha:g} of lesion, {1 - alpha:g} of the rest, γ = {gamma:g}. No resampling.")


def _recalibration(run: Run) -> Fact:
    asked = run.config["inference"]["recalibrate"]
    done = "Logits were mapped by slope and intercept of the validation slides" if asked else "None"
    return Fact(f"{done} (inference.recalibrate).")


RUN_FACTS: Mapping[str, Answer] = {
    "scanners": _scanners,
    "partitions": _partitions,
    "exclusion": _exclusion,
    "missing_data": _missing_data,
    "flow": _flow,
    "preprocessing": _preprocessing,
    "subsets": _subsets,
    "reference_standard": _reference_standard,
    "annotation_formats": _annotation_formats,
    "folds": _folds,
    "patient_level": _patient_level,
    "numbers": _numbers,
    "network": _network,
    "prediction": _prediction,
    "image_only": _image_only,
    "software": _software,
    "code": _code,
    "settings": _settings,
    "model_file": _model_file,
    "initialisation": _initialisation,
    "training": _training,
    "model_choice": _model_choice,
    "threshold": _threshold,
    "ensemble": _ensemble,
    "imbalance": _imbalance,
    "recalibration": _recalibration,
}
