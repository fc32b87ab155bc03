"""The report: pages for the cohort and one per slide, which open from disk without network.

They can be read without JavaScript, too; slides are then shown as pictures.
"""

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from PIL import Image
from shapely.geometry import shape

import lesionmap
from lesionmap import model_card
from lesionmap.figures import BLUE, VERMILION, save_svg
from lesionmap.files import read_json, write_text
from lesionmap.folders import folder_written_whole
from lesionmap.infer_settings import inference_mpp
from lesionmap.learning_curves import published_epoch
from lesionmap.number_format import MISSING, counted, duration, fixed, with_interval
from lesionmap.quarantine import quarantined
from lesionmap.references import cited_sources
from lesionmap.report_cohort import (
    compared_models,
    has_lesion,
    lowest_dice,
    most_false,
    stage_times,
    table_rows,
    text_rows,
)
from lesionmap.software import commit, versions
from lesionmap.stain import StainProfile
from lesionmap.stain_pictures import directions, draw_stains
from lesionmap.viewer_files import colour_stops, colour_tables, write_viewer

TEMPLATES = Path(__file__).parent / "templates/report"
MOST_LESIONS_LISTED = 100
THUMBNAIL_PX = (200, 150)
STAIN_PICTURE_PX = (1700, 460)
STAIN_THUMBNAILS_PX = (400, 200)
MOST_ODD_STAINS_LISTED = 100
MOST_STAINS_LABELLED = 20
MOST_VECTORS = 1000  # that an SVG holds as shapes; more become pixels, or it would open slowly
FARTHEST_DIRECTION = (1.6, 1.2)  # of a stain that is drawn where it lies
STAIN_VECTORS = "stain_vectors.svg"
SPLITS = ("train", "val", "test", "inference")


@dataclass(frozen=True)
class ReportInputs:
    """The files that the report shows; sequences hold one file per readable slide, in the sheet's order.

    Parameters
    ----------
    quarantine : str
        Table of :func:`lesionmap.losses.list_quarantine`.
    summary, slide_table : str
        Files of :func:`lesionmap.summary.summarise`.
    metric_figures : sequence of str
        Files of :func:`lesionmap.cohort_figures.plot_metrics`.
    models : str or None
        File of :func:`lesionmap.model_comparison.compare_models`; None where no other model is named.
    stain_table, stain_spread : str
        Files of :func:`lesionmap.stain_cohort.compare_stains`.
    model : str
        The model file in use.
    history, learning_curves : str or None
        Training history, and the file of :func:`lesionmap.learning_curves.plot_learning_curves`; None where an
        existing model was used.
    records : sequence of str
        Files of :func:`lesionmap.inspection.inspect_slide`.
    stains, stain_pictures, stain_thumbnails : sequence of str
        Files of :func:`lesionmap.stain_match.match_slide`.
    outlines, overlays : sequence of str
        Files of :func:`lesionmap.inference.infer_slide`.
    views : sequence of str
        Folders of :func:`lesionmap.views.cut_view`, which lie in ``views`` beside the pages' folder.
    """

    quarantine: str
    summary: str
    slide_table: str
    metric_figures: Sequence[str]
    models: str | None
    stain_table: str
    stain_spread: str
    model: str
    history: str | None
    learning_curves: str | None
    records: Sequence[str]
    stains: Sequence[str]
    stain_pictures: Sequence[str]
    stain_thumbnails: Sequence[str]
    outlines: Sequence[str]
    overlays: Sequence[str]
    views: Sequence[str]


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
        Its :class:`lesionmap.slides.SlideInfo`, :class:`lesionmap.inspection.Resolution` and what
        :func:`lesionmap.stain_match.match_slide` wrote, as JSON.
    stain_outlier : str
        In what its stain is unlike the other slides'; empty if in nothing.
    metrics : dict or None
        Its row of the table of :func:`lesionmap.summary.summarise`; None where the slide was not evaluated.
    lesions : list of Lesion
        The largest, largest first; `n_lesions` and `lesion_area_mm2` are of all.
    threshold : float
        Probability from which a pixel is lesion.
    refusals, notes : list of str
        By which stages it was refused, and what is odd about it.
    provenance : str
        Where its lesion map comes from, YAML.
    viewable : bool
        Whether there is a deep-zoom view of it.
    """

    slide: str
    split: str
    info: dict[str, Any]
    resolution: dict[str, Any]
    refusals: list[str]
    notes: list[str]
    stain: dict[str, Any]
    stain_outlier: str
    metrics: dict[str, Any] | None
    lesions: list[Lesion]
    n_lesions: int
    lesion_area_mm2: float
    threshold: float
    provenance: str
    viewable: bool

    @property
    def size_mm(self) -> tuple[float, float]:
        """Width and height of the scan."""
        width, height = self.info["size_lv0"]
        return width * self.info["mpp"] / 1000, height * self.info["mpp"] / 1000

    @property
    def oddities(self) -> list[str]:
        """All that is odd about it, each once."""
        return list(dict.fromkeys([*self.refusals, *self.notes, *self.stain_oddities]))

    @property
    def stain_oddities(self) -> list[str]:
        """What is odd about its stain; a fit whose verdict is not ``ok`` has a flag."""
        unlike = [f"unlike the other slides: {self.stain_outlier}"] if self.stain_outlier else []
        return [*self.stain["flags"], *unlike]

    @property
    def stain_oddness(self) -> tuple[bool, float]:
        """The larger, the odder: slides that do not show two stains, then by the larger angle to the reference."""
        return self.stain["fitted"]["verdict"] != "ok", max(self.stain["angle_to_reference"])


@dataclass(frozen=True)
class CohortTables:
    """What the tables of the cohort say of its slides, by id: row of metrics, refusals, in what the stain is unlike."""

    metrics: dict[str, dict[str, Any]]
    refusals: dict[str, list[str]]
    stain_outliers: dict[str, str]


@dataclass(frozen=True)
class ReportFiles:
    """Where the report goes, all in one folder.

    Parameters
    ----------
    index : str
        The cohort's page, written last.
    stain, model : str
        The pages of all slides' stains, and of the model.
    script : str
        JavaScript of the cohort's page.
    pages, figures, viewer : str
        Folders for the slides' pages, for all pictures, and for the scripts of the slides' viewer; what they held is
        replaced.
    """

    index: str
    stain: str
    model: str
    script: str
    pages: str
    figures: str
    viewer: str


def render_report(inputs: ReportInputs, files: ReportFiles, *, config: dict[str, Any], benchmarks: str) -> None:
    """Write the report, whole or not at all.

    Parameters
    ----------
    inputs : ReportInputs
    files : ReportFiles
    config : dict
        The run's settings, which the report repeats.
    benchmarks : str
        Folder of Snakemake's benchmark files, which may be absent; their times differ from run to run.
    """
    templates = _templates()
    inputs = _without_quarantined(inputs)
    slides = _load_slides(inputs)
    facts = _cohort_facts(inputs, slides, config) | {"stages": stage_times(benchmarks), "settings": _yaml(config)}
    threshold = next((slide.threshold for slide in slides), config["inference"]["threshold"])
    shared = {"config": config, "map_mpp": inference_mpp(config), "threshold": threshold}
    shared |= {"colour_tables": colour_tables(), "colour_stops": colour_stops()}
    texts = {
        files.script: (TEMPLATES / "report.js").read_text(encoding="utf-8"),
        files.model: _model_page(inputs.model, templates),
        files.stain: templates.get_template("stain.html.j2").render(_stain_facts(inputs, slides), **shared),
        files.index: templates.get_template("index.html.j2").render(facts, **shared),
    }
    with (
        folder_written_whole(files.pages) as new_pages,
        folder_written_whole(files.figures) as new_figures,
        folder_written_whole(files.viewer) as new_viewer,
    ):
        write_viewer(new_viewer)
        _write_pages(new_pages, slides, templates.get_template("slide.html.j2"), shared)
        _write_pictures(new_figures, slides, inputs)
    for path, text in texts.items():
        write_text(path, text)


def _templates() -> Environment:
    templates = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    numbers = {"fixed": fixed, "with_interval": with_interval, "duration": duration, "counted": counted}
    templates.filters |= numbers | model_card.FILTERS | {"colour": stain_colour, "yaml": _yaml}
    return templates


def _model_page(model: str, templates: Environment) -> str:
    """The model's card as a page; what the file lacks is called not recorded."""
    lenient = templates.overlay(
        undefined=model_card.NotRecorded, finalize=lambda value: MISSING if value is None else value
    )
    return lenient.get_template("model.html.j2").render(model_card.card_facts(model))


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
        stain_thumbnails=list(compress(inputs.stain_thumbnails, mapped)),
        outlines=list(compress(inputs.outlines, mapped)),
        overlays=list(compress(inputs.overlays, mapped)),
        views=list(compress(inputs.views, mapped)),
    )


def _load_slides(inputs: ReportInputs) -> list[SlideReport]:
    table = pd.read_csv(inputs.slide_table, sep="\t", converters={"slide": str})  # so that NA stays an id
    tables = CohortTables(
        metrics={row["slide"]: row for row in table_rows(table)},
        refusals=_refusals(inputs.quarantine),
        stain_outliers={row["slide"]: row["outlier"].replace("_", " ") for row in text_rows(inputs.stain_table)},
    )
    paths = zip(inputs.records, inputs.stains, inputs.outlines, inputs.views, strict=True)
    return [_load_slide(*files, tables) for files in paths]


def _refusals(quarantine: str) -> dict[str, list[str]]:
    """What the stages said that could not use a slide, by slide."""
    refusals: dict[str, list[str]] = {}
    for row in text_rows(quarantine):
        refusals.setdefault(row["slide"], []).append(f"in quarantine since {row['stage']}: {row['finding']}")
    return refusals


def _load_slide(record: str, stain: str, outlines: str, view: str, tables: CohortTables) -> SlideReport:
    slide, match, lesions = read_json(record), read_json(stain), read_json(outlines)
    name = slide["slide"]
    lost = len(lesions["unreadable"])
    corner = slide["info"]["bounds_xy_lv0"]
    largest = sorted(lesions["features"], key=_area_mm2, reverse=True)[:MOST_LESIONS_LISTED]
    return SlideReport(
        slide=name,
        split=slide["split"],
        info=slide["info"],
        stain=match,
        stain_outlier=tables.stain_outliers[name],
        resolution=slide["resolution"],
        refusals=tables.refusals.get(name, []),
        notes=[
            *slide["flags"],
            *match["flags"],
            *([f"{lost} tiles cannot be read and have no lesion map"] if lost else []),
        ],
        metrics=tables.metrics.get(name),
        lesions=[_lesion(feature, corner) for feature in largest],
        n_lesions=len(lesions["features"]),
        lesion_area_mm2=sum(map(_area_mm2, lesions["features"])),
        threshold=lesions["threshold"],
        provenance=_yaml(lesions["provenance"]),
        viewable=not quarantined(view),
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


def _write_pages(folder: Path, slides: list[SlideReport], template: Template, shared: dict[str, Any]) -> None:
    for before, slide, after in zip([None, *slides], slides, [*slides[1:], None], strict=False):
        page = template.render(slide=slide, before=before, after=after, **shared)
        write_text(folder / f"{slide.slide}.html", page)


def _write_pictures(folder: Path, slides: list[SlideReport], inputs: ReportInputs) -> None:
    pictures = (inputs.overlays, inputs.stain_pictures, inputs.stain_thumbnails)
    for slide, overlay, stain, stain_thumbnails in zip(slides, *pictures, strict=True):
        shutil.copyfile(overlay, folder / f"{slide.slide}_overlay.png")
        _shrink(overlay, folder / f"{slide.slide}_thumbnail.png", THUMBNAIL_PX)
        _shrink(stain, folder / f"{slide.slide}_stain.jpg", STAIN_PICTURE_PX)
        _shrink(stain_thumbnails, folder / f"{slide.slide}_stain_thumbnails.png", STAIN_THUMBNAILS_PX)
    if slides:
        draw_stain_vectors(slides, folder / STAIN_VECTORS)
    for chart in (*inputs.metric_figures, *filter(None, [inputs.learning_curves])):
        shutil.copyfile(chart, folder / Path(chart).name)


def _shrink(picture: str, target: Path, most_px: tuple[int, int]) -> None:
    with Image.open(picture) as image:
        image.thumbnail(most_px)
        image.convert("RGB").save(target)


def draw_stain_vectors(slides: Sequence[SlideReport], path: Path) -> None:
    """Draw the fitted stain vectors of all slides, and the reference's, as SVG; equal slides give equal bytes.

    Parameters
    ----------
    slides : sequence of SlideReport
        At least one. The oddest are labelled, and their two stains joined.
    path : Path
    """
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    fitted = np.array([_fitted_directions(slide) for slide in slides])  # (slides, 2 stains, 2)
    for points, stain, colour in zip(fitted.swapaxes(0, 1), ("haematoxylin", "eosin"), (BLUE, VERMILION), strict=True):
        x, y = points.T
        dots = axes.scatter(x, y, s=18, color=colour, alpha=0.7, linewidths=0, label=f"{stain}, slides")
        dots.set_rasterized(len(slides) > MOST_VECTORS)
    for slide in _odd_stains(slides)[:MOST_STAINS_LABELLED]:
        _label_stains(axes, slide)
    reference = StainProfile.of(slides[0].stain["reference"])
    draw_stains(axes, reference, "reference", marker="s", hollow=True)
    for square in axes.lines[-2:]:
        square.set_path_effects([withStroke(linewidth=2.5, foreground="white")])  # seen among thousands of dots
    figure.legend(frameon=False, loc="outside upper center", ncols=4)
    save_svg(figure, path)


def _label_stains(axes: Axes, slide: SlideReport) -> None:
    haematoxylin, eosin = _fitted_directions(slide)
    axes.plot(*zip(haematoxylin, eosin, strict=True), color="0.7", linewidth=0.8, zorder=1)
    label = axes.annotate(slide.slide, haematoxylin, (4, 4), textcoords="offset points", fontsize="x-small")
    label.set_parse_math(False)


def _fitted_directions(slide: SlideReport) -> NDArray[np.float64]:
    """Where the slide's own stains point, (2, 2); stains of no tissue lie at the edge of the picture."""
    own = "profile" if slide.stain["fitted"]["verdict"] == "ok" else "fitted"  # a usable profile is in the right order
    return np.minimum(directions(np.array(slide.stain[own]["basis"])), FARTHEST_DIRECTION)


def _odd_stains(slides: Sequence[SlideReport]) -> list[SlideReport]:
    """The slides whose stain is odd, the oddest first."""
    odd = [slide for slide in slides if slide.stain_oddities]
    return sorted(odd, key=lambda slide: slide.stain_oddness, reverse=True)


def _cohort_facts(inputs: ReportInputs, slides: list[SlideReport], config: Mapping[str, Any]) -> dict[str, Any]:
    history = pd.read_csv(inputs.history) if inputs.history else None
    summary = read_json(inputs.summary)
    evaluated = [slide.metrics for slide in slides if slide.metrics]
    return {
        "version": lesionmap.__version__,
        "commit": commit(),
        "versions": versions(),
        "slides": slides,
        "split_counts": {split: sum(slide.split == split for slide in slides) for split in SPLITS},
        "quarantine": text_rows(inputs.quarantine),
        "summary": summary,
        "lowest_dice": lowest_dice(evaluated),
        "most_false": most_false(evaluated),
        "all_have_lesion": all(map(has_lesion, evaluated)),
        "models": compared_models(inputs.models) if inputs.models else [],
        "epochs": 0 if history is None else len(history),
        "published": None if history is None else published_epoch(history),
        "sources": cited_sources(config["stain"], evaluated=bool(summary["splits"])),
    }


def _stain_facts(inputs: ReportInputs, slides: list[SlideReport]) -> dict[str, Any]:
    odd = _odd_stains(slides)
    return {
        "slides": slides,
        "reference": slides[0].stain["reference_slide"] if slides else MISSING,
        "spread": read_json(inputs.stain_spread),
        "odd": odd[:MOST_ODD_STAINS_LISTED],
        "odd_left_out": len(odd[MOST_ODD_STAINS_LISTED:]),
        "labelled": min(len(odd), MOST_STAINS_LABELLED),
    }
