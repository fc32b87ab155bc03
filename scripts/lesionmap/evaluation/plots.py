"""Plots of how maps agree with the pathologist (docs/metrics.md); equal metrics give equal bytes."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from lesionmap.annotations.classes import LESION
from lesionmap.evaluation.curves import area_differences, froc_points, precision_recall_points, roc_points
from lesionmap.evaluation.leakage import LEAKED, group_of
from lesionmap.evaluation.summary import read_slide_table
from lesionmap.files.atomic import written_whole
from lesionmap.files.records import read_json
from lesionmap.formatting import counted, fixed, with_interval
from lesionmap.metrics.froc import FALSE_PER_SLIDE
from lesionmap.metrics.lesion_sizes import SIZE_NAMES
from lesionmap.metrics.pixels import Histograms
from lesionmap.plotting import BLUE, GREEN, PURPLE, VERMILION, save_svg

SPLIT_STYLES = {"test": (BLUE, "-", "o"), "val": (VERMILION, "--", "s"), LEAKED: (PURPLE, "-.", "^")}
SWEPT = {  # with two more of Okabe & Ito's colours, and its own dash pattern for each
    "dice": ("Dice", BLUE, "-"),
    "iou": ("IoU", "#56B4E9", "--"),
    "precision": ("Precision", VERMILION, "-."),
    "recall": ("Recall", GREEN, ":"),
    "specificity": ("Specificity", PURPLE, (0, (6, 1.5, 1, 1.5, 1, 1.5))),
}
SIZE_LABELS = dict(zip(SIZE_NAMES, ("below\n0.2 mm", "0.2 to\n0.5 mm", "0.5 to\n2 mm", "2 mm\nand more"), strict=True))
SIZE_INCHES = (5.4, 4.4)
WORDS_INCHES = (5.4, 1.6)
FROC_ENDS = (1 / 8, 8.0)
RATE_LABELS = ("¼", "½", "1", "2", "4", "8")
SHIFT = {"test": -1, "val": 1, LEAKED: 0}  # to either side, where the dots of both splits would overlap
MOST_LABELLED = 5
ROUNDING_MM2 = 1e-5  # more than the rounding of the slide table
MOST_VECTORS = 1000  # drawn as shapes; more are drawn as pixels, as the SVG would open slowly
NOT_INDEPENDENT = "not independent of the model"
NOT_EVALUATED = "no slide of the split val or test has both a lesion map and a usable annotation"
Summary = Mapping[str, Any]
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class MetricPlots:
    """Paths of the plots, all SVG."""

    roc: str
    precision_recall: str
    froc: str
    calibration: str
    thresholds: str
    areas: str
    lesion_sizes: str
    decision_curve: str


def plot_metrics(summary: str, slide_table: str, files: MetricPlots) -> None:
    """Draw all plots; an undefined one says why in words.

    Parameters
    ----------
    summary, slide_table : str
        Files of :func:`lesionmap.evaluation.summary.summarise`.
    """
    found = read_json(summary)["splits"]
    splits = {split: found[split] for split in SPLIT_STYLES if split in found}
    rows = [row for row in read_slide_table(slide_table) if not math.isnan(row["highest_probability"])]
    drawings = {
        files.roc: draw_roc(splits),
        files.precision_recall: draw_precision_recall(splits),
        files.froc: draw_froc(splits),
        files.calibration: draw_calibration(splits),
        files.thresholds: draw_thresholds(splits),
        files.areas: draw_areas(splits, rows),
        files.lesion_sizes: draw_lesion_sizes(splits),
        files.decision_curve: draw_decision_curve(splits),
    }
    for path, figure in drawings.items():
        with written_whole(path) as draft:
            save_svg(figure, draft)


def draw_roc(splits: Summary) -> Figure:
    """ROC curve of the pixels of each split, with a mark at the threshold in use."""
    if not (defined := _defined(splits, "auroc")):
        return _in_words("ROC curve", splits, "auroc")
    figure, axes = _square()
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle=":", gid="chance")
    for split, summary in defined.items():
        metrics = summary["metrics"]
        label = f"{_cohort(split, summary)}\nAUROC {with_interval(metrics['auroc'], 3)}"
        _line(axes, split, roc_points(Histograms.of_record(summary["histograms"]).counts), "roc", label)
        _mark_used(axes, split, (1 - metrics["specificity"]["value"], metrics["recall"]["value"]))
    axes.set(xlabel="1 − specificity", ylabel="recall (sensitivity)", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    _legend(axes, splits, "auroc", _used(defined), loc="lower right")
    return figure


def draw_precision_recall(splits: Summary) -> Figure:
    """Precision-recall curve of each split's pixels, with the share of lesion and a mark at the threshold in use."""
    if not (defined := _defined(splits, "auprc")):
        return _in_words("Precision-recall curve", splits, "auprc")
    figure, axes = _square()
    for split, summary in defined.items():
        metrics, counts = summary["metrics"], Histograms.of_record(summary["histograms"]).counts
        label = f"{_cohort(split, summary)}\nAUPRC {with_interval(metrics['auprc'], 3)}"
        _line(axes, split, precision_recall_points(counts), "precision-recall", label, drawstyle="steps-pre")
        share = counts[LESION].sum() / counts.sum()
        axes.axhline(share, color=SPLIT_STYLES[split][0], linewidth=0.8, linestyle=":", gid=f"chance-{split}")
        if metrics["precision"]["value"] is not None:
            _mark_used(axes, split, (metrics["recall"]["value"], metrics["precision"]["value"]))
    axes.set(xlabel="recall (sensitivity)", ylabel="precision", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    dotted = Line2D([], [], color="0.4", linewidth=0.8, linestyle=":", label="share of lesion among all pixels")
    _legend(axes, splits, "auprc", [*_used(defined), dotted], loc="lower left")
    return figure


def draw_froc(splits: Summary) -> Figure:
    """Free-response ROC curve of each split, with the six rates of the FROC score and their intervals."""
    if not (defined := _defined(splits, "froc_score")):
        return _in_words("FROC curve", splits, "froc_score")
    figure, axes = _square()
    for split, summary in defined.items():
        metrics, last = summary["metrics"], summary["froc"]["false_per_slide"][-1]
        label = f"{_cohort(split, summary)}\nFROC score {with_interval(metrics['froc_score'], 3)}"
        rates, sensitivity = froc_points(summary["froc"], FROC_ENDS)
        _line(axes, split, (rates, sensitivity), "froc-beyond", None, alpha=0.35)
        reached = rates <= last
        _line(axes, split, (rates[reached], sensitivity[reached]), "froc", label)
        at = [metrics[f"sensitivity_at_{rate:g}"] for rate in FALSE_PER_SLIDE]
        _dots(axes, split, np.array(FALSE_PER_SLIDE) * 1.03 ** SHIFT[split], at)
    axes.set_xscale("log")
    axes.set(xlabel="false lesions per slide", ylabel="share of annotated lesions found", ylim=(-0.02, 1.02))
    axes.set_xticks(FALSE_PER_SLIDE, RATE_LABELS)
    axes.xaxis.set_minor_locator(NullLocator())
    _legend(axes, splits, "froc_score", loc="lower right")
    return figure


def draw_calibration(splits: Summary) -> Figure:
    """Reliability diagram of each split, and below it the number of pixels in each bin."""
    if not (defined := _defined(splits, "ece")):
        return _in_words("Calibration", splits, "ece")
    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle=":", gid="perfect")
    for split, summary in defined.items():
        bins = {key: np.array([row[key] for row in summary["calibration"]]) for key in summary["calibration"][0]}
        label = f"{_cohort(split, summary)}\ncalibration error {with_interval(summary['metrics']['ece'], 3)}"
        points = (bins["mean_probability"], bins["share_of_lesion"])
        _line(axes, split, points, "calibration", label, marker=SPLIT_STYLES[split][2], markersize=4)
        _line(counts, split, (points[0], bins["pixels"]), "pixels", None, marker=SPLIT_STYLES[split][2], markersize=4)
    axes.set(ylabel="share of lesion", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    counts.set(xlabel="mean probability of the bin", ylabel="pixels", yscale="log")
    for panel in (axes, counts):
        panel.grid(color="0.9", linewidth=0.6)
    _legend(axes, splits, "ece", loc="upper left")
    return figure


def draw_thresholds(splits: Summary) -> Figure:
    """Dice, IoU, precision, recall and specificity of each split against the threshold."""
    if not (defined := _defined(splits, "specificity", "recall")):
        return _in_words("Threshold sweep", splits, "specificity")
    figure, panels = _panels(defined)
    for (split, summary), axes in zip(defined.items(), panels, strict=True):
        for name, (label, colour, dashes) in SWEPT.items():
            x, y, low, high = _swept(summary["sweep"], name)
            axes.plot(x, y, color=colour, linestyle=dashes, label=label, gid=f"{name}-{split}")
            if name == "dice":
                axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0, gid=f"dice-interval-{split}")
        if note := summary["metrics"]["dice"]["note"] if summary["metrics"]["dice"]["value"] is None else "":
            axes.text(0.5, 0.05, f"Dice and the like: {note}", ha="center", fontsize="small", parse_math=False)
        used = summary["threshold"]
        axes.axvline(used, color="0.4", linewidth=0.9, label=f"used: {used:g}", gid=f"used-{split}")
        axes.set(title=_cohort(split, summary), xlabel="threshold", xlim=(0, 1), ylim=(-0.02, 1.02))
        axes.grid(color="0.9", linewidth=0.6)
    handles = {line.get_label(): line for axes in panels for line in axes.lines}
    figure.legend(handles=list(handles.values()), frameon=False, loc="outside lower center", ncols=6, fontsize="small")
    return figure


def draw_areas(splits: Summary, rows: Rows) -> Figure:
    """Bland-Altman plot of the predicted and the annotated area of each slide, a panel for each split."""
    if not (defined := _defined(splits, "area_difference_mm2")):
        return _in_words("Areas", splits, "area_difference_mm2")
    figure, panels = _panels(defined)
    for (split, summary), axes in zip(defined.items(), panels, strict=True):
        members = [row for row in rows if group_of(row["split"], row["leakage"]) == split]
        mean, difference = area_differences(members)
        colour, _, marker = SPLIT_STYLES[split]
        dots = axes.scatter(
            mean, difference, s=16, color=colour, marker=marker, alpha=0.7, linewidths=0, gid=f"slides-{split}"
        )
        dots.set_rasterized(len(members) > MOST_VECTORS)
        _agreement_lines(axes, split, summary["metrics"])
        for index in _outside(difference, summary["metrics"]):
            spot = (mean[index], difference[index])
            name = axes.annotate(members[index]["slide"], spot, (4, 4), textcoords="offset points", fontsize="x-small")
            name.set_parse_math(False)
        axes.set_title(f"{_cohort(split, summary)}\n{_agreement(summary['metrics'])}", fontsize="medium")
        axes.set(xlabel="mean of predicted and annotated area, mm²", xlim=(0, 1.15 * mean.max() or 1))
        axes.margins(y=0.12)
    panels[0].set_ylabel("predicted − annotated area, mm²")
    return figure


def draw_lesion_sizes(splits: Summary) -> Figure:
    """Share of annotated lesions that the map finds, overall and by size, for each split."""
    if not (defined := _defined(splits, "lesion_recall")):
        return _in_words("Lesions by size", splits, "lesion_recall")
    figure, axes = _square()
    places = np.arange(len(SIZE_NAMES) + 1)
    for split, summary in defined.items():
        metrics = summary["metrics"]
        entries = [metrics["lesion_recall"], *(metrics[f"lesion_recall_{size}"] for size in SIZE_NAMES)]
        x = places + 0.12 * SHIFT[split]
        _dots(axes, split, x, entries, label=_cohort(split, summary))
    axes.set_xticks(places, _size_labels(defined), fontsize="small")
    axes.set(ylabel="share of annotated lesions found", xlim=(-0.6, len(places) - 0.4), ylim=(-0.04, 1.04))
    handles = _handles(axes, splits, "lesion_recall")
    figure.legend(handles=handles, frameon=False, fontsize="small", loc="outside upper center", ncols=2)
    return figure


def draw_decision_curve(splits: Summary) -> Figure:
    """Net benefit of each split against the threshold probability, beside lesion everywhere and nowhere."""
    if not (defined := _defined(splits, "recall")):
        return _in_words("Decision curve", splits, "recall")
    figure, axes = _square()
    axes.axhline(0, color="0.6", linewidth=0.8, label="nothing predicted as lesion", gid="nothing")
    highest = 0.0
    for split, summary in defined.items():
        x, of_map, everything = (_numbers(summary["decision_curve"], key) for key in ("threshold", "map", "everything"))
        _line(axes, split, (x, of_map), "map", _cohort(split, summary))
        axes.plot(x, everything, color=SPLIT_STYLES[split][0], linewidth=0.8, linestyle=":", gid=f"everything-{split}")
        highest = max(highest, of_map.max(), everything.max())
    axes.set(xlabel="threshold probability", ylabel="net benefit, share of all pixels", xlim=(0, 1))
    axes.set_ylim(-highest / 2, highest * 1.1)  # predicting lesion everywhere falls without end
    dotted = Line2D([], [], color="0.4", linewidth=0.8, linestyle=":", label="everything predicted as lesion")
    _legend(axes, splits, "recall", [dotted], loc="upper right")
    return figure


def _defined(splits: Summary, *names: str) -> dict[str, Any]:
    """Splits for which at least one of the metrics is defined."""
    return {
        split: summary
        for split, summary in splits.items()
        if any(summary["metrics"][name]["value"] is not None for name in names)
    }


def _why_undefined(splits: Summary, name: str) -> Iterator[str]:
    """Why a metric is undefined, for each split for which it is."""
    for split, summary in splits.items():
        entry = summary["metrics"][name]
        if entry["value"] is None:
            yield f"{_cohort(split, summary)}: {entry['note']}"


def _in_words(title: str, splits: Summary, name: str) -> Figure:
    """A plot that says in words why there is nothing to draw."""
    figure = Figure(figsize=WORDS_INCHES)
    reasons = list(_why_undefined(splits, name)) or [NOT_EVALUATED]
    text = "\n".join(fill(line, 60) for line in [f"{title}: undefined.", *reasons])
    figure.text(0.5, 0.5, text, ha="center", va="center", linespacing=1.5, parse_math=False)
    return figure


def _cohort(split: str, summary: Summary) -> str:
    """A split and its size, and whether it is independent of the model."""
    size = f"{counted(summary['slides'], 'slide')} of {counted(summary['patients'], 'patient')}"
    return f"{split}: {size}" + (f"\n({NOT_INDEPENDENT})" if summary["mark"] else "")


def _square() -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    axes = figure.subplots()
    axes.grid(color="0.9", linewidth=0.6)
    return figure, axes


def _panels(splits: Summary) -> tuple[Figure, list[Axes]]:
    """A panel for each split, side by side."""
    figure = Figure(figsize=(SIZE_INCHES[0] * len(splits), SIZE_INCHES[1]), layout="constrained")
    return figure, list(figure.subplots(1, len(splits), squeeze=False, sharey=True)[0])


def _line(axes: Axes, split: str, points: tuple[Any, Any], kind: str, label: str | None, **style: Any) -> None:
    colour, dashes, _ = SPLIT_STYLES[split]
    axes.plot(*points, color=colour, linestyle=dashes, label=label, gid=f"{kind}-{split}", **style)


def _dots(axes: Axes, split: str, x: Any, entries: Sequence[Mapping[str, Any]], label: str | None = None) -> None:
    """Metrics as dots, with their confidence intervals as bars if they have one."""
    colour, _, marker = SPLIT_STYLES[split]
    values, low, high = (_numbers(entries, key) for key in ("value", "low", "high"))
    reach = np.maximum([values - low, high - values], 0)
    style: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 4.5, "linestyle": "none", "capsize": 2}
    bars = axes.errorbar(x, values, yerr=reach, label=label, elinewidth=1, **style)
    bars.lines[0].set_gid(f"dots-{split}")


def _numbers(entries: Sequence[Mapping[str, Any]], key: str) -> Any:
    """One number of each entry; NaN where there is none."""
    return np.array([entry[key] for entry in entries], dtype=float)


def _mark_used(axes: Axes, split: str, point: tuple[float, float]) -> None:
    colour, _, marker = SPLIT_STYLES[split]
    axes.plot(*point, color=colour, marker=marker, markersize=7, markeredgecolor="black", gid=f"used-{split}")


def _used(splits: Summary) -> list[Line2D]:
    """Legend entry for the mark at the threshold in use."""
    used = " and ".join(dict.fromkeys(f"{summary['threshold']:g}" for summary in splits.values()))
    style: dict[str, Any] = {"marker": "o", "markersize": 7, "markeredgecolor": "black", "color": "white"}
    return [Line2D([], [], label=f"at the threshold in use, {used}", linestyle="none", **style)]


def _legend(axes: Axes, splits: Summary, name: str, more: Sequence[Line2D] = (), **place: Any) -> None:
    handles = _handles(axes, splits, name, more)
    axes.legend(handles=handles, framealpha=0.85, edgecolor="none", fontsize="small", **place)


def _handles(axes: Axes, splits: Summary, name: str, more: Sequence[Line2D] = ()) -> list[Any]:
    """Legend entries: what is drawn, what else needs explaining, and why a split is missing."""
    gaps = [Line2D([], [], linestyle="none", label=fill(gap, 40)) for gap in _why_undefined(splits, name)]
    return [*axes.get_legend_handles_labels()[0], *more, *gaps]


def _swept(sweep: Sequence[Mapping[str, Any]], name: str) -> tuple[Any, Any, Any, Any]:
    """Thresholds, and a metric with its interval at each."""
    entries = [row[name] for row in sweep]
    return np.array([row["threshold"] for row in sweep]), *(_numbers(entries, key) for key in ("value", "low", "high"))


def _agreement_lines(axes: Axes, split: str, metrics: Summary) -> None:
    """Mean difference and limits of agreement as lines, their intervals as bands."""
    axes.axhline(0, color="0.6", linewidth=0.8, linestyle=":")
    for name, dashes in (("difference", "-"), ("lower_limit", "--"), ("upper_limit", "--")):
        entry = metrics[f"area_{name}_mm2"]
        if entry["value"] is not None:
            axes.axhline(entry["value"], color="0.2", linewidth=1, linestyle=dashes, gid=f"{name}-{split}")
        if entry["low"] is not None:
            axes.axhspan(entry["low"], entry["high"], color="0.5", alpha=0.15, linewidth=0)


def _agreement(metrics: Summary) -> str:
    """Mean difference and limits of agreement in words."""
    mean, *limits = (metrics[f"area_{name}_mm2"] for name in ("difference", "lower_limit", "upper_limit"))
    reach = " to ".join(fixed(limit["value"], 3) for limit in limits)
    return f"mean {with_interval(mean, 3)}, limits {reach if limits[0]['value'] is not None else 'undefined'}"


def _outside(difference: Any, metrics: Summary) -> Sequence[int]:
    """Indices of the slides farthest outside the limits of agreement, at most five."""
    low, high = (metrics[f"area_{side}_limit_mm2"]["value"] for side in ("lower", "upper"))
    if low is None:
        return []
    excess = np.maximum(low - difference, difference - high)
    order = np.argsort(-excess, kind="stable")[:MOST_LABELLED]
    return [int(index) for index in order if excess[index] > ROUNDING_MM2]


def _size_labels(splits: Summary) -> list[str]:
    """Name of each size, with the numbers of found and annotated lesions of that size in each split."""
    labels = ["all\n", *SIZE_LABELS.values()]
    for split, summary in splits.items():
        counts = _lesion_counts(summary["lesions"])
        labels = [f"{label}\n{split} {n}/{of}" for label, (n, of) in zip(labels, counts, strict=True)]
    return labels


def _lesion_counts(lesions: Summary) -> list[tuple[int, int]]:
    """Numbers of found and annotated lesions, in total and of each size."""
    sizes = [(lesions[size]["found"], lesions[size]["annotated"]) for size in SIZE_NAMES]
    return [(sum(pair[0] for pair in sizes), sum(pair[1] for pair in sizes)), *sizes]
