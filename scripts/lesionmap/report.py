"""The report: a page for the cohort and one per slide, which open from disk without network or JavaScript."""

import math
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import matplotlib as mpl
import pandas as pd
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from matplotlib.figure import Figure
from PIL import Image
from shapely.geometry import shape

import lesionmap
from lesionmap.files import read_json, write_text
from lesionmap.quarantine import quarantined

TEMPLATES = Path(__file__).parent / "templates"
MISSING = "—"
MOST_LESIONS_LISTED = 100
THUMBNAIL_PX = (200, 150)
STAIN_PICTURE_PX = (1400, 700)
LEARNING_CURVES = "learning_curves.svg"
SPLITS = ("train", "val", "test", "inference")
LATER_STAGES = ("render_report", "conclude")  # what an earlier run left of them is no part of this report
BLUE, VERMILION = "#0072B2", "#D55E00"  # Okabe & Ito 2008: told apart by colour-blind readers
CURVES = {
    "Focal loss": {
        "train_low_loss": ("train, low", BLUE, "o-"),
        "train_fused_loss": ("train, fused", VERMILION, "s-"),
        "val_low_loss": ("val, low", BLUE, "o--"),
    },
    "Dice, validation slides": {
        "val_low_dice": ("low", BLUE, "o--"),
        "val_fused_dice": ("fused", VERMILION, "s--"),
    },
}


@dataclass(frozen=True)
class ReportInputs:
    """The files that the report shows; sequences hold one file per readable slide, in the sheet's order.

    Parameters
    ----------
    quarantine : str
        Table of :func:`lesionmap.losses.list_quarantine`.
    cohort, slide_table : str
        Files of :func:`lesionmap.evaluation.summarise`.
    history : str or None
        Training history; None where an existing model was used.
    records : sequence of str
        Files of :func:`lesionmap.inspection.inspect_slide`.
    stains, stain_pictures : sequence of str
        Files of :func:`lesionmap.stain.fit_slide`.
    outlines, overlays : sequence of str
        Files of :func:`lesionmap.inference.infer_slide`.
    """

    quarantine: str
    cohort: str
    slide_table: str
    history: str | None
    records: Sequence[str]
    stains: Sequence[str]
    stain_pictures: Sequence[str]
    outlines: Sequence[str]
    overlays: Sequence[str]


@dataclass(frozen=True)
class Lesion:
    """One lesion of a slide; its centroid in level-0 pixels of the file."""

    name: str
    area_mm2: float
    mean_probability: float
    max_probability: float
    centroid_xy_lv0: tuple[float, float]


@dataclass(frozen=True)
class SlideReport:
    """What is shown of one slide.

    Parameters
    ----------
    info, resolution, stain : dict
        Its :class:`lesionmap.slides.SlideInfo`, :class:`lesionmap.inspection.Resolution` and
        :class:`lesionmap.stain.StainProfile` as JSON.
    metrics : dict or None
        By the names of :func:`lesionmap.metrics.binary_metrics`; None where the slide was not evaluated.
    lesions : list of Lesion
        The largest, largest first; `n_lesions` and `lesion_area_mm2` are of all.
    refusals, notes : list of str
        By which stages it was refused, and what is odd about it.
    provenance : str
        Where its lesion map comes from, YAML.
    """

    slide: str
    split: str
    info: dict[str, Any]
    resolution: dict[str, Any]
    refusals: list[str]
    notes: list[str]
    stain: dict[str, Any]
    metrics: dict[str, Any] | None
    lesions: list[Lesion]
    n_lesions: int
    lesion_area_mm2: float
    provenance: str

    @property
    def size_mm(self) -> tuple[float, float]:
        """Width and height of the scan."""
        width, height = self.info["size_lv0"]
        return width * self.info["mpp"] / 1000, height * self.info["mpp"] / 1000


def render_report(
    inputs: ReportInputs, index: str, pages: str, figures: str, *, config: dict[str, Any], benchmarks: str
) -> None:
    """Write the report, whole or not at all.

    Parameters
    ----------
    inputs : ReportInputs
    index : str
        The cohort's page, written last.
    pages, figures : str
        Folders beside it for the slides' pages and for all pictures; what they held is replaced.
    config : dict
        The run's settings, which the report repeats.
    benchmarks : str
        Folder of Snakemake's benchmark files, which may be absent; their times differ from run to run.
    """
    templates = _templates()
    inputs = _without_quarantined(inputs)
    slides = _load_slides(inputs)
    facts = _cohort_facts(inputs, slides) | {"stages": stage_times(benchmarks), "settings": _yaml(config)}
    text = templates.get_template("index.html.j2").render(facts, config=config)
    with _replaced(pages) as new_pages, _replaced(figures) as new_figures:
        _write_pages(new_pages, slides, templates.get_template("slide.html.j2"), config)
        _write_pictures(new_figures, slides, inputs)
    write_text(index, text)


def _templates() -> Environment:
    templates = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"fixed": fixed, "duration": duration}
    templates.filters |= {"angle": angle_degrees, "colour": stain_colour}
    return templates


@contextmanager
def _replaced(target: str) -> Iterator[Path]:
    """Give an empty folder to fill; put it in the place of `target` if the block succeeds."""
    parent = Path(target).parent
    parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=parent, prefix=".draft-") as draft:
        made = Path(draft, "made")  # inside, because a temporary folder itself is private to its user
        made.mkdir()
        yield made
        shutil.rmtree(target, ignore_errors=True)
        os.replace(made, target)


def fixed(value: float | None, digits: int) -> str:
    """`value` with so many decimals; a dash where there is none."""
    return MISSING if value is None or math.isnan(value) else f"{value:.{digits}f}"


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss, or with one decimal below a minute."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02} h"


def angle_degrees(basis: Sequence[Sequence[float]]) -> float:
    """Angle between the two unit vectors of a stain basis."""
    cosine = sum(part * other for part, other in zip(*basis, strict=True))
    return math.degrees(math.acos(min(1.0, cosine)))


def stain_colour(row: Sequence[float], concentration: float) -> str:
    """CSS colour of one stain alone at a concentration; `row` is its optical density in R, G, B."""
    return "rgb({}, {}, {})".format(*(round(255 * math.exp(-concentration * part)) for part in row))


def _without_quarantined(inputs: ReportInputs) -> ReportInputs:
    """The same without the slides that have no lesion map because a later stage than the inspection refused them."""
    mapped = [not quarantined(path) for path in inputs.outlines]
    return replace(
        inputs,
        records=list(compress(inputs.records, mapped)),
        stains=list(compress(inputs.stains, mapped)),
        stain_pictures=list(compress(inputs.stain_pictures, mapped)),
        outlines=list(compress(inputs.outlines, mapped)),
        overlays=list(compress(inputs.overlays, mapped)),
    )


def _load_slides(inputs: ReportInputs) -> list[SlideReport]:
    table = pd.read_csv(inputs.slide_table, sep="\t", dtype={"slide": str})
    evaluated = {row["slide"]: row for row in _rows(table)}
    refusals = _refusals(inputs.quarantine)
    paths = zip(inputs.records, inputs.stains, inputs.outlines, strict=True)
    return [_load_slide(*files, evaluated, refusals) for files in paths]


def _refusals(quarantine: str) -> dict[str, list[str]]:
    """What the stages said that could not use a slide, by slide."""
    refusals: dict[str, list[str]] = {}
    for row in _rows(pd.read_csv(quarantine, sep="\t", dtype=str, keep_default_na=False)):
        refusals.setdefault(row["slide"], []).append(f"in quarantine since {row['stage']}: {row['finding']}")
    return refusals


def _load_slide(
    record: str,
    stain: str,
    outlines: str,
    evaluated: dict[str, dict[str, Any]],
    refusals: dict[str, list[str]],
) -> SlideReport:
    slide, lesions = read_json(record), read_json(outlines)
    name = slide["slide"]
    lost = len(lesions["unreadable"])
    corner = slide["info"]["bounds_xy_lv0"]
    largest = sorted(lesions["features"], key=_area_mm2, reverse=True)[:MOST_LESIONS_LISTED]
    return SlideReport(
        slide=name,
        split=slide["split"],
        info=slide["info"],
        stain=read_json(stain)["profile"],
        resolution=slide["resolution"],
        refusals=refusals.get(name, []),
        notes=[
            *slide["flags"],
            *([f"{lost} tiles cannot be read and have no lesion map"] if lost else []),
        ],
        metrics=evaluated.get(name),
        lesions=[_lesion(feature, corner) for feature in largest],
        n_lesions=len(lesions["features"]),
        lesion_area_mm2=sum(map(_area_mm2, lesions["features"])),
        provenance=_yaml(lesions["provenance"]),
    )


def _area_mm2(feature: dict[str, Any]) -> float:
    return float(feature["properties"]["measurements"]["Area mm^2"])


def _lesion(feature: dict[str, Any], corner: tuple[int, int]) -> Lesion:
    measurements = feature["properties"]["measurements"]
    centroid = shape(feature["geometry"]).centroid  # relative to the bounds' corner, as QuPath wants it
    return Lesion(
        name=feature["properties"]["name"],
        area_mm2=_area_mm2(feature),
        mean_probability=measurements["Mean probability"],
        max_probability=measurements["Max probability"],
        centroid_xy_lv0=(centroid.x + corner[0], centroid.y + corner[1]),
    )


def _yaml(content: Any) -> str:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)


def _write_pages(folder: Path, slides: list[SlideReport], template: Template, config: dict[str, Any]) -> None:
    for before, slide, after in zip([None, *slides[:-1]], slides, [*slides[1:], None], strict=True):
        page = template.render(slide=slide, before=before, after=after, config=config)
        write_text(folder / f"{slide.slide}.html", page)


def _write_pictures(folder: Path, slides: list[SlideReport], inputs: ReportInputs) -> None:
    for slide, overlay, stain in zip(slides, inputs.overlays, inputs.stain_pictures, strict=True):
        shutil.copyfile(overlay, folder / f"{slide.slide}_overlay.png")
        _shrink(overlay, folder / f"{slide.slide}_thumbnail.png", THUMBNAIL_PX)
        _shrink(stain, folder / f"{slide.slide}_stain.jpg", STAIN_PICTURE_PX)
    if inputs.history:
        draw_learning_curves(pd.read_csv(inputs.history), folder / LEARNING_CURVES)


def _shrink(picture: str, target: Path, most_px: tuple[int, int]) -> None:
    with Image.open(picture) as image:
        image.thumbnail(most_px)
        image.save(target)


def draw_learning_curves(history: pd.DataFrame, path: Path) -> None:
    """Draw loss and validation Dice over epochs as SVG; equal histories give equal bytes.

    Parameters
    ----------
    history : pandas.DataFrame
        As :func:`lesionmap.training.train` writes it; without validation slides it has no validation columns.
    path : Path
    """
    charts = [chart for chart in CURVES.items() if set(chart[1]) & set(history)]
    figure = Figure(figsize=(4.5 * len(charts), 3.2), layout="constrained")
    panels = figure.subplots(1, len(charts), squeeze=False)[0]
    for axes, (title, curves) in zip(panels, charts, strict=True):
        for column, (label, colour, style) in curves.items():
            if column in history:
                axes.plot(history["epoch"], history[column], style, label=label, color=colour, markersize=3)
        axes.axvline(published_epoch(history), color="0.6", linewidth=0.8, zorder=0)
        axes.set(title=title, xlabel="epoch", ylim=(0, None))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(frameon=False)
    with mpl.rc_context({"svg.hashsalt": "lesionmap"}):
        figure.savefig(path, metadata={"Date": None, "Creator": None})


def published_epoch(history: pd.DataFrame) -> int:
    """The epoch whose model was published: lowest validation loss, else the last."""
    if "val_low_loss" not in history:
        return int(history["epoch"].iloc[-1])
    lowest = history["val_low_loss"] == history["val_low_loss"].min()
    return int(history.loc[lowest, "epoch"].iloc[-1])


def _cohort_facts(inputs: ReportInputs, slides: list[SlideReport]) -> dict[str, Any]:
    history = pd.read_csv(inputs.history) if inputs.history else None
    return {
        "version": lesionmap.__version__,
        "slides": slides,
        "split_counts": {split: sum(slide.split == split for slide in slides) for split in SPLITS},
        "quarantine": _rows(pd.read_csv(inputs.quarantine, sep="\t", dtype=str, keep_default_na=False)),
        "cohort": read_json(inputs.cohort),
        "epochs": 0 if history is None else len(history),
        "published": None if history is None else published_epoch(history),
    }


def stage_times(benchmarks: str) -> list[dict[str, Any]]:
    """Jobs, summed and longest seconds, and peak memory (MB) of each stage; empty without benchmark files."""
    measured = [
        pd.read_csv(path, sep="\t").assign(stage=path.relative_to(benchmarks).parts[0].removesuffix(".tsv"))
        for path in sorted(Path(benchmarks).rglob("*.tsv"))
    ]
    if not measured:
        return []
    table = pd.concat(measured)
    stages = table[~table["stage"].isin(LATER_STAGES)].groupby("stage")
    times = stages.agg(jobs=("s", "size"), seconds=("s", "sum"), longest_s=("s", "max"))
    times["peak_mb"] = stages["max_rss"].max()
    return _rows(times.sort_values("seconds", ascending=False).reset_index())


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
