"""Write the report: pages for the cohort and one per slide, which open from disk without a network.

The pages also work without JavaScript; slides are then shown as pictures.
"""

import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, Template
from PIL import Image

from lesionmap.evaluation.findings_in_words import missed_in_words, slide_in_words
from lesionmap.files.atomic import folder_written_whole
from lesionmap.files.records import read_json, write_text
from lesionmap.formatting import MISSING
from lesionmap.jobs.quarantine import usable
from lesionmap.report import model_card
from lesionmap.report.checklist import checklist_of, write_checklist
from lesionmap.report.cohort import cohort_content, copied_tables, stage_times
from lesionmap.report.inputs import ReportInputs, without_quarantined
from lesionmap.report.methods import methods_content
from lesionmap.report.slides import SlideReport, as_yaml, load_slides
from lesionmap.report.stain_page import draw_stain_vectors, stain_colour, stain_content
from lesionmap.report.templating import page_templates
from lesionmap.viewer.assets import colour_stops, colour_tables, write_viewer

TEMPLATES = Path(__file__).parent / "templates/render"
THUMBNAIL_PX = (200, 150)
STAIN_PICTURE_PX = (1700, 460)
STAIN_THUMBNAILS_PX = (400, 200)
CARD = "MODEL_CARD.md"
MOST_COPIED = 20_000_000  # bytes; larger files are named, not copied
SLIDE_FILES = {
    "lesions.geojson": "outlines for QuPath",
    "lesions.tsv": "a row for each lesion",
    "stain.json": "stain vectors, P99 and ratio",
    "metrics.json": "agreement with the annotation",
}
STAIN_VECTORS = "stain_vectors.svg"


@dataclass(frozen=True)
class ReportFiles:
    """Where the report is written, all in one folder.

    Parameters
    ----------
    index : str
        The cohort's page, written last.
    stain, model, checklist : str
        The pages about the stains of all slides, about the model, and about what guidelines ask.
    checklist_table : str
        The last of these as TSV.
    script : str
        JavaScript of the cohort's page.
    pages, figures, viewer : str
        Folders for the slide pages, for all pictures, and for the scripts of the viewer. Their old content is replaced.
    files, tables : str
        Folders for copies of small files, of each slide and of the cohort, so that the report's folder can travel.
    """

    index: str
    stain: str
    model: str
    checklist: str
    checklist_table: str
    script: str
    pages: str
    figures: str
    viewer: str
    files: str
    tables: str


def render_report(
    inputs: ReportInputs,
    files: ReportFiles,
    *,
    slides: Collection[str],
    config: dict[str, Any],
    map_mpp: float,
    benchmarks: str,
    model_notes: Sequence[str] = (),
) -> None:
    """Write the report, whole or not at all, and leave nothing of other slides in its folder.

    Parameters
    ----------
    slides : collection of str
        Ids of the whole sheet. Views of other slides are removed; those of slides in quarantine stay.
    config : dict
        The run's config, which the report shows.
    map_mpp : float
        Resolution of the lesion maps, µm/px.
    benchmarks : str
        Folder of Snakemake's benchmark files; it may be absent. Their times differ from run to run.
    model_notes : sequence of str
        What the model of ``model.path`` has set in the config, and how maps differ from training.
    """
    templates = _templates()
    templates.globals["report_title"] = config["report"]["title"]
    inputs = without_quarantined(inputs)
    shown = load_slides(inputs)
    content = cohort_content(inputs, shown, config) | {"stages": stage_times(benchmarks), "settings": as_yaml(config)}
    content |= {"model_notes": model_notes}
    threshold = next((slide.threshold for slide in shown), config["inference"]["threshold"])
    card = model_card.card_metadata(inputs.model)
    content |= {"methods": methods_content(content, config, card)}
    guidelines = checklist_of(inputs, content, config, card=card, map_mpp=map_mpp)
    shared = {"config": config, "map_mpp": map_mpp, "threshold": threshold}
    shared |= {"colour_tables": colour_tables(), "colour_stops": colour_stops()}
    texts = {
        files.script: (TEMPLATES / "report.js").read_text(encoding="utf-8"),
        files.model: _model_page(card | {"stated": config["report"]}, templates, content["summary"]),
        files.checklist: templates.get_template("checklist.html.j2").render(guidelines=guidelines),
        files.stain: templates.get_template("stain.html.j2").render(stain_content(inputs, shown), **shared),
        files.index: templates.get_template("index.html.j2").render(content, **shared),
    }
    with (
        folder_written_whole(files.pages) as new_pages,
        folder_written_whole(files.figures) as new_figures,
        folder_written_whole(files.viewer) as new_viewer,
        folder_written_whole(files.files) as new_files,
        folder_written_whole(files.tables) as new_tables,
    ):
        write_viewer(new_viewer)
        shared["slide_files"] = _copy_files(new_files, inputs)
        for name, table in copied_tables(inputs.tables).items():
            (new_tables / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(table, new_tables / name)
            if name.endswith(CARD):
                with open(new_tables / name, "a", encoding="utf-8") as stream:
                    stream.write(model_card.evaluation_section(content["summary"]["splits"]))
        _write_pages(new_pages, shown, templates.get_template("slide.html.j2"), shared)
        _write_pictures(new_figures, shown, inputs)
    write_checklist(files.checklist_table, guidelines)
    _remove_views_of_others(Path(files.index).parent / "views", slides)
    for path, text in texts.items():
        write_text(path, text)


def _remove_views_of_others(views: Path, slides: Collection[str]) -> None:
    """Remove the views of slides that are not in the sheet, and what killed jobs left of them."""
    for place in views.iterdir() if views.is_dir() else ():
        slide = place.name.removeprefix(".").removesuffix(".draft") if place.name.startswith(".") else place.name
        if slide not in slides and place.is_symlink():
            place.unlink()
        elif slide not in slides and place.is_dir():
            shutil.rmtree(place)


def _templates() -> Environment:
    templates = page_templates(TEMPLATES)
    templates.filters |= model_card.FILTERS | {
        "colour": stain_colour,
        "yaml": as_yaml,
        "found_in_words": slide_in_words,
        "missed_in_words": missed_in_words,
    }
    return templates


def _model_page(card: dict[str, Any], templates: Environment, summary: dict[str, Any]) -> str:
    """The model card as a page, with what this run says of the model; missing metadata are "not recorded"."""
    lenient = templates.overlay(
        undefined=model_card.NotRecorded, finalize=lambda value: MISSING if value is None else value
    )
    return lenient.get_template("model.html.j2").render(card, here=summary["validation"], splits=summary["splits"])


def _write_pages(folder: Path, slides: list[SlideReport], template: Template, shared: dict[str, Any]) -> None:
    for before, slide, after in zip([None, *slides], slides, [*slides[1:], None], strict=False):
        page = template.render(slide=slide, before=before, after=after, **shared)
        write_text(folder / f"{slide.slide}.html", page)


def _write_pictures(folder: Path, slides: list[SlideReport], inputs: ReportInputs) -> None:
    pictures = (inputs.overlays, inputs.stain_pictures, inputs.stain_thumbnails)
    for slide, overlay, stain, stain_thumbnails in zip(slides, *pictures, strict=True):
        if slide.viewable:
            shutil.copyfile(overlay, folder / f"{slide.slide}_overlay.png")
            _shrink(overlay, folder / f"{slide.slide}_thumbnail.png", THUMBNAIL_PX)
        if slide.stain_drawn:
            _shrink(stain, folder / f"{slide.slide}_stain.jpg", STAIN_PICTURE_PX)
            _shrink(stain_thumbnails, folder / f"{slide.slide}_stain_thumbnails.png", STAIN_THUMBNAILS_PX)
    if slides:
        draw_stain_vectors(slides, folder / STAIN_VECTORS)
    for chart in (*inputs.metric_plots, *filter(None, [inputs.learning_curves])):
        shutil.copyfile(chart, folder / Path(chart).name)


def _copy_files(folder: Path, inputs: ReportInputs) -> dict[str, dict[str, str]]:
    """Copy each slide's small files; return their names and what they are, by slide."""
    metrics = {read_json(path)["slide"]: path for path in usable(inputs.metrics)}
    copied: dict[str, dict[str, str]] = {}
    for path, *others in zip(inputs.records, inputs.outlines, inputs.lesion_tables, inputs.stains, strict=True):
        slide = read_json(path)["slide"]
        names = dict(zip(SLIDE_FILES, (*others, metrics.get(slide)), strict=True))
        (folder / slide).mkdir(parents=True)
        small = {name: of for name, of in names.items() if of and Path(of).stat().st_size <= MOST_COPIED}
        for name, of in small.items():
            shutil.copyfile(of, folder / slide / name)
        copied[slide] = {name: SLIDE_FILES[name] for name in small}
    return copied


def _shrink(picture: str, target: Path, most_px: tuple[int, int]) -> None:
    with Image.open(picture) as image:
        image.thumbnail(most_px)
        image.convert("RGB").save(target)
