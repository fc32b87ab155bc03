"""What the methods section says besides the settings: slides, lesions and readers, what was left out, the training."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from lesionmap.formatting import counted

NEEDED = {
    "train": (
        *("schedule", "learning_rate", "decay_rate", "epochs", "focal_gamma", "focal_alpha"),
        *("augment", "seed", "tile_batch"),
    ),
    "model": ("backbone", "weights", "norm", "fusion"),
    "tiles": ("mpp", "region_px", "tile_px"),
}
SEEN = {"training_slides": "training slide", "validation_slides": "validation slide"}


def methods_content(content: Mapping[str, Any], config: Mapping[str, Any], card: Mapping[str, Any]) -> dict[str, Any]:
    """Content of the methods section that neither the config nor the rest of the page has.

    Parameters
    ----------
    content : mapping
        From :func:`lesionmap.report.cohort.cohort_content`.
    config : mapping
        The run's config.
    card : mapping
        From :func:`lesionmap.report.model_card.card_metadata`.

    Returns
    -------
    dict
        ``training``: of :func:`training_of`; ``seen``: slides and patients of training and of validation in words,
        where recorded; ``model_sha256``; ``epoch`` and the map it was ``chosen_by``, None if not recorded;
        ``refused``: number of slides in quarantine by the stage that refused them first; ``lesions``: annotated lesions
        of each evaluated group; ``twice_read``: slides that a second reader annotated, too;
        ``ignored``: slides and mm².
    """
    groups = content["summary"]["splits"]
    stages = {row["slide"]: row["stage"] for row in reversed(content["quarantine"])}
    ignored = [found["ignored"] for found in groups.values()]
    return {
        "training": training_of(content, config, card),
        "seen": {key: _in_words(card, key, noun) for key, noun in SEEN.items() if key in card},
        "model_sha256": card["file"]["sha256"],
        "chosen_by": card.get("chosen_by"),
        "epoch": content["published"] or card.get("epoch", {}).get("epoch"),
        "refused": dict(Counter(stages.values()).most_common()),
        "lesions": {name: _annotated(found["lesions"]) for name, found in groups.items()},
        "twice_read": _twice_read(content["readers"]),
        "ignored": {name: sum(part[name] for part in ignored) for name in ("slides", "mm2")},
    }


def training_of(
    content: Mapping[str, Any], config: Mapping[str, Any], card: Mapping[str, Any]
) -> dict[str, Mapping[str, Any]] | None:
    """Settings of the training: the config's if this run trained, else the model file's; None if some are missing."""
    recorded = dict(card.get("provenance", {})) | {"tiles": card.get("tiles", {})}
    sections = config if content["published"] else recorded
    whole = all(key in sections.get(name, {}) for name, keys in NEEDED.items() for key in keys)
    return {name: sections[name] for name in NEEDED} if whole else None


def _in_words(card: Mapping[str, Any], key: str, noun: str) -> str:
    return f"{counted(len(card[key]), noun)} ({card['patients'][key].replace('Patients', 'patients')})"


def _twice_read(readers: list[Mapping[str, Any]]) -> int:
    """Slides with two readers; kappa rests on all of them."""
    return sum(int(row["slides"]) for row in readers if row["metric"] == "kappa")


def _annotated(by_size: Mapping[str, Mapping[str, int]]) -> int:
    return sum(size["annotated"] for size in by_size.values())
