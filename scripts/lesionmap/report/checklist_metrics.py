"""What a run knows of how well its model does: facts of the slides that are independent of the model."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from lesionmap.formatting import counted, with_interval
from lesionmap.report.checklist_facts import Answer, Fact, Run

NAMES = {
    "dice": "Dice",
    "iou": "IoU",
    "slide_mean_dice": "Dice, mean of slides",
    "slide_mean_iou": "IoU, mean of slides",
    "slide_mean_nsd": "normalised surface Dice, mean of slides",
    "slide_mean_hd95_um": "95 % Hausdorff distance in µm, mean of slides",
    "auroc": "AUROC of pixels",
    "auprc": "average precision of pixels",
    "precision": "precision",
    "recall": "recall",
    "specificity": "specificity",
    "brier": "Brier score",
    "ece": "expected calibration error",
    "calibration_slope": "calibration slope",
    "calibration_intercept": "calibration intercept",
    "froc_score": "FROC score",
    "false_lesions_per_slide": "false lesions per slide",
    "lesion_recall": "lesions found",
    "area_difference_mm2": "predicted − annotated area in mm²",
    "area_lower_limit_mm2": "lower limit of agreement",
    "area_upper_limit_mm2": "upper limit of agreement",
    "slide_auroc_probability": "AUROC of slides by the highest probability",
    "slide_auroc_area": "AUROC of slides by the predicted area",
}

HEADLINE = ("dice", "auroc", "froc_score", "lesion_recall")
MOST_NAMED = 3


def _lead(run: Run) -> str:
    return str(run.content["lead"]).capitalize()


def _values(run: Run, names: Sequence[str], *, intervals: bool = False) -> Fact | None:
    """Values of metrics; the fact is whole if all of them have one and, if asked for, an interval."""
    metrics = run.lead["metrics"] if run.lead else {}
    found = {name: metrics[name] for name in names if metrics.get(name, {}).get("value") is not None}
    if not found:
        return None
    whole = len(found) == len(names) and not (intervals and any(entry["low"] is None for entry in found.values()))
    text = "; ".join(f"{NAMES[name]} {with_interval(entry, 3)}" for name, entry in found.items())
    return Fact(f"{_lead(run)}: {text}.", whole)


def _annotated(run: Run) -> Fact | None:
    if run.lead is None:
        return None
    slides, patients = counted(run.lead["slides"], "slide"), counted(run.lead["patients"], "patient")
    return Fact(f"{_lead(run)}: {slides} of {patients} are annotated, {run.lead['slides_with_lesion']} with lesion.")


def _characteristics(run: Run) -> Fact | None:
    named = [
        f"{name.capitalize()}: {found['slides_with_lesion']} of {counted(found['slides'], 'slide')} with lesion, "
        f"{counted(sum(size['annotated'] for size in found['lesions'].values()), 'annotated lesion')}."
        for name, found in run.groups.items()
    ]
    return Fact(" ".join(named)) if named else None


def _metrics(run: Run) -> Fact | None:
    if run.lead is None:
        return None
    entries = run.lead["metrics"].values()
    defined = sum(entry["value"] is not None for entry in entries)
    return Fact(
        f"{_lead(run)}: {defined} of {len(entries)} metrics of pixels, lesions, areas and slides are defined; "
        "cohort.tsv has the reason for the others. Definitions: docs/metrics.md of LesionMap."
    )


def _intervals(run: Run) -> Fact | None:
    metrics = run.lead["metrics"] if run.lead else {}
    found, defined = (sum(entry[key] is not None for entry in metrics.values()) for key in ("low", "value"))
    if not found:
        return None
    level = run.content["summary"]["rules"]["level"]
    text = f"{100 * level:g} % intervals from a jackknife over patients, of {found} of {defined} defined metrics."
    return Fact(text, whole=all(metrics[name]["low"] is not None for name in HEADLINE))


def _sweep(run: Run) -> Fact | None:
    if run.lead is None:
        return None
    thresholds = [row["threshold"] for row in run.lead["sweep"]]
    return Fact(f"Dice, IoU, precision, recall and specificity at thresholds from {thresholds[0]} to {thresholds[-1]}.")


def _groups(run: Run) -> Fact | None:
    asked = run.config["evaluation"].get("groups")
    return Fact(f"Metrics by {', '.join(asked)}.") if asked and run.table("metrics/groups.tsv") else None


def _readers(run: Run) -> Fact | None:
    rows = run.table("metrics/readers.tsv")
    pairs = dict.fromkeys(row.get("pair", "") for row in rows)
    return Fact(f"Agreement with a second annotation: {', '.join(pairs)}.") if rows else None


def _compared(run: Run) -> Iterator[str]:
    if models := dict.fromkeys(row["model"] for row in run.content["models"]):
        yield f"Models compared on the same slides, with intervals of the differences: {', '.join(models)}."
    if run.table("experiments/differences.tsv"):
        yield "Experiments: paired differences of variants, with intervals."


def _comparison(run: Run) -> Fact | None:
    text = " ".join(_compared(run))
    return Fact(text) if text else None


def _experiments(run: Run) -> Fact | None:
    variants = run.config["experiments"]["variants"]
    named = f": {', '.join(variants)}" if variants else ""
    return Fact(f"Experiments: folds and seeds of each variant{named}.") if run.table("experiments/table.tsv") else None


def _label(run: Run, kind: str) -> str | None:
    """What the summary says of the kind of validation, wherever it stands there; None if it is of another kind."""
    said = [*run.content["summary"].values(), *(run.lead or {}).values()]
    return next((text for text in said if isinstance(text, str) and text.startswith(f"{kind} validation")), None)


def _internal(run: Run) -> Fact | None:
    if run.lead is None or run.config["model"]["path"]:
        return None
    held_out = f"Internal validation: {run.content['lead']} slides, on which the model was neither trained nor chosen."
    return Fact(_label(run, "internal") or held_out)


def _external(run: Run) -> Fact | None:
    if run.lead is None or not run.config["model"]["path"]:
        return None
    label = _label(run, "external")
    unseen = f"The model is of another run; it is not known to have seen any of the {run.content['lead']} slides."
    return Fact(label or unseen, whole=bool(label))


def _worst(run: Run) -> Fact | None:
    kinds = {"Lowest Dice": "lowest_dice", "Largest false area on slides without lesion": "largest_false_positives"}
    worst = {kind: run.content[key][:MOST_NAMED] for kind, key in kinds.items()}
    named = [f"{kind}: {', '.join(row['slide'] for row in rows)}" for kind, rows in worst.items() if rows]
    return Fact(f"Worst slides, with pictures. {'. '.join(named)}.") if named else None


def _decision_curve(run: Run) -> Fact | None:
    curve = run.lead.get("decision_curve") if run.lead else None
    return Fact(f"{_lead(run)}: net benefit over thresholds (decision curve).") if curve else None


def _lesion_sizes(run: Run) -> Fact | None:
    sizes = {name: size for name, size in run.lead["lesions"].items() if size["annotated"]} if run.lead else {}
    named = ", ".join(
        f"{name.replace('_', ' ').replace('mm', ' mm')} {size['found']} of {size['annotated']}"
        for name, size in sizes.items()
    )
    return Fact(f"{_lead(run)}: annotated lesions found, by extent: {named}.") if sizes else None


def _ignored(run: Run) -> Fact | None:
    if run.lead is None:
        return None
    ignored = run.lead["ignored"]
    return Fact(
        f"{_lead(run)}: {ignored['mm2']:.3f} mm² of {counted(ignored['slides'], 'slide')} count in no metric, because "
        "the annotation says to ignore them."
    )


def _without_lesion(run: Run) -> Fact | None:
    clean = run.lead["slides"] - run.lead["slides_with_lesion"] if run.lead else 0
    if not clean:
        return None
    values = _values(run, ("specificity", "false_lesions_per_slide"))
    undefined = f"{counted(clean, 'slide')} without lesion: Dice and the like are undefined there, not 0 or 1."
    return Fact(f"{undefined} {values.text}" if values else undefined)


METRIC_FACTS: Mapping[str, Answer] = {
    "annotated": _annotated,
    "characteristics": _characteristics,
    "metrics": _metrics,
    "intervals": _intervals,
    "performance": partial(_values, names=HEADLINE, intervals=True),
    "slide_level": partial(_values, names=("slide_auroc_area", "slide_auroc_probability"), intervals=True),
    "sweep": _sweep,
    "groups": _groups,
    "readers": _readers,
    "comparison": _comparison,
    "experiments": _experiments,
    "internal": _internal,
    "external": _external,
    "worst": _worst,
    "calibration": partial(_values, names=("brier", "ece", "calibration_slope", "calibration_intercept")),
    "decision_curve": _decision_curve,
    "overlap": partial(_values, names=("dice", "iou")),
    "detection": partial(_values, names=("froc_score", "false_lesions_per_slide", "lesion_recall")),
    "boundary": partial(_values, names=("slide_mean_nsd", "slide_mean_hd95_um")),
    "area": partial(_values, names=("area_difference_mm2", "area_lower_limit_mm2", "area_upper_limit_mm2")),
    "lesion_sizes": _lesion_sizes,
    "slide_means": partial(_values, names=("dice", "slide_mean_dice", "iou", "slide_mean_iou")),
    "precision": partial(_values, names=("auprc", "precision", "recall", "specificity")),
    "ignored": _ignored,
    "without_lesion": _without_lesion,
    "ranking": partial(_values, names=("auroc", "auprc")),
}
