"""Leakage: evaluated slides that the model has seen, and other slides of the same patients (docs/metrics.md)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from lesionmap.errors import SettingsError
from lesionmap.files.model_metadata import patient_digest
from lesionmap.formatting import counted

LEAKED = "leaked"
GROUPS = ("test", "val", LEAKED)  # of evaluated slides, in the order in which they are shown
TRAINING, VALIDATION = "training slide of the model", "validation slide of the model"
CHOSEN = "the model was chosen on these slides"
SEEN = "the model was trained or chosen on these slides, or on other slides of their patients"
UNKNOWN_SLIDES = "the model file does not record its slides: whether these metrics are independent of it is unknown"
UNKNOWN_PATIENTS = "the model file does not record patients: only the content of slides was compared with it"
REMEDY = (
    "give them the split inference, so that they are mapped and not judged, or set evaluation.on_leakage: mark, which "
    "marks their metrics and leaves them out of the headline"
)
INTERNAL = "internal validation: held-out slides of the same sheet"
NOT_EXTERNAL = "no external validation: the model has seen every evaluated slide, or another of its patient"
MOST_NAMED = 5


@dataclass(frozen=True)
class Seen:
    """The slides and patients that a model has seen; the most severe kind first.

    Parameters
    ----------
    training, validation : mapping of str to str
        Id of a slide in the model's metadata, by its identity.
    training_patients, validation_patients : mapping of str to str
        Id of a patient's slide, by the patient's digest.
    notes : tuple of str
        What the model file does not record.
    model : str
        The run that the model is of, in words; empty if it is not recorded.
    """

    training: Mapping[str, str] = field(default_factory=dict)
    training_patients: Mapping[str, str] = field(default_factory=dict)
    validation: Mapping[str, str] = field(default_factory=dict)
    validation_patients: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    model: str = ""

    @classmethod
    def of(cls, metadata: Mapping[str, Any], patients: Mapping[str, str] | None = None) -> "Seen":
        """From the metadata of a model file.

        Parameters
        ----------
        patients : mapping of str to str, optional
            Patients by slide, as the sheet that the model was trained on names them now.
        """
        now = {slide: patient_digest(patient) for slide, patient in (patients or {}).items() if patient}
        recorded = metadata.get("patients", {})
        training, validation = (metadata.get(name, {}) for name in ("training_slides", "validation_slides"))
        return cls(
            training=_inverted(training),
            training_patients=_inverted(recorded, training) | _inverted(now, training),
            validation=_inverted(validation),
            validation_patients=_inverted(recorded, validation) | _inverted(now, validation),
            notes=tuple(_not_recorded(metadata)),
            model=", ".join(_origin(metadata)),
        )

    def leakage(self, identity: str | None, patient: str | None) -> str:
        """How a slide depends on the model, in words; empty if it does not.

        Parameters
        ----------
        identity : str or None
            SHA-256 of its content; None if unknown.
        patient : str or None
            Id; a slide without one is of no patient that the model has seen.
        """
        digest = patient_digest(patient) if patient else None
        kinds = (
            (TRAINING, self.training, identity),
            (f"same patient as a {TRAINING}", self.training_patients, digest),
            (VALIDATION, self.validation, identity),
            (f"same patient as a {VALIDATION}", self.validation_patients, digest),
        )
        return next((f"{kind} ({known[key]})" for kind, known, key in kinds if key and key in known), "")


def _inverted(slides: Mapping[str, str], among: Mapping[str, str] | None = None) -> dict[str, str]:
    """The first slide of each identity or patient, of all slides or of those `among` others."""
    chosen = slides if among is None else [slide for slide in among if slide in slides]
    return {slides[slide]: slide for slide in reversed([*chosen])}


def _not_recorded(metadata: Mapping[str, Any]) -> Iterator[str]:
    if "training_slides" not in metadata:
        yield UNKNOWN_SLIDES
    elif "patients" not in metadata:
        yield UNKNOWN_PATIENTS


def _origin(metadata: Mapping[str, Any]) -> Iterator[str]:
    """The run of a model, and the version that trained it. No date is recorded, as equal runs give equal files."""
    if run := metadata.get("run"):
        yield f"run {run[:12]}"
    if software := metadata.get("provenance", {}).get("software"):
        yield software


UNSEEN = Seen()


def validation_of(seen: Seen, slides: Sequence[tuple[str, str | None]], *, external: bool) -> str:
    """What kind of validation the metrics are that are independent of the model, in words.

    Parameters
    ----------
    slides : sequence of (str, str or None)
        Of each evaluated slide, how it depends on the model (:meth:`Seen.leakage`), and its patient.
    external : bool
        Whether the model comes from another run.
    """
    if not slides or not external:
        return INTERNAL if slides else ""
    model = f"a model of another run ({seen.model})" if seen.model else "a model of another run"
    if UNKNOWN_SLIDES in seen.notes:
        return f"validation of {model}; whether it is external is unknown, as the model file does not record its slides"
    patients = [patient for leakage, patient in slides if not leakage]
    if not patients:
        return NOT_EXTERNAL
    known = f"trained on {counted(len(seen.training), 'slide')} and chosen by {len(seen.validation)}"
    where = f"on {len(patients)} of {counted(len(slides), 'evaluated slide')}, which are not among those"
    return f"external validation of {model}, {known}: {where}, {_of_patients(seen, patients)}"


def _of_patients(seen: Seen, patients: Sequence[str | None]) -> str:
    """Say that the model has not seen the patients of slides either, as far as that is known."""
    if UNKNOWN_PATIENTS in seen.notes:
        return "while it is unknown whether their patients are: the model file records none"
    unnamed = sum(not patient for patient in patients)
    but = f", but for {counted(unnamed, 'slide')} whose patient the sheet does not name" if unnamed else ""
    return f"and whose patients are not, either{but}"


def group_of(split: str, leakage: str) -> str:
    """The group with which a slide is judged: its split, or ``leaked``.

    The model's own validation slides stay in the split val, since that is what it is for.
    """
    return split if not leakage or (split == "val" and leakage.startswith(VALIDATION)) else LEAKED


def mark_of(group: str, leakages: Iterator[str]) -> str:
    """Why the metrics of a group are not independent of the model; empty if they are."""
    return SEEN if group == LEAKED else CHOSEN if any(leakages) else ""


def leaks_in_words(leaks: Mapping[str, str]) -> str:
    """Say how many slides are not independent of the model, and how the first of them depend on it."""
    named = ", ".join(f"{slide} ({leakage})" for slide, leakage in islice(leaks.items(), MOST_NAMED))
    more = f" and {len(leaks) - MOST_NAMED} more" if len(leaks) > MOST_NAMED else ""
    return f"{counted(len(leaks), 'evaluated slide')} not independent of the model: {named}{more}"


def refuse(leaks: Mapping[str, str], stage: str) -> None:
    """Raise a SettingsError if there are any leaks; they say how a slide depends on the model, by its id."""
    if leaks:
        raise SettingsError(
            stage=stage, finding=f"{leaks_in_words(leaks)}; evaluation.on_leakage is refuse", remedy=REMEDY
        )
