"""Write the folder of a review: for each slide the outlines to correct, where it lies, and how to go about it."""

import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lesionmap.errors import StorageError
from lesionmap.files.atomic import folder_written_whole
from lesionmap.files.records import read_json, write_table, write_text
from lesionmap.formatting import counted
from lesionmap.jobs.quarantine import quarantined, usable
from lesionmap.review.outlines import review_outlines
from lesionmap.servers.urls import is_remote
from lesionmap.slides.slide import load_info
from lesionmap.version import VERSION

TEMPLATES = Path(__file__).parent / "templates/folder"
HOWTO, SCRIPT, TABLE, OUTLINES, BEFORE = "HOWTO.md", "import.groovy", "slides.tsv", "outlines", "before"
STAMP = '{"type": "FeatureCollection", "for_review_by": "LesionMap '  # begins each file of outlines; QuPath drops it
COLUMNS = ("slide", "split", "path", "outlines", "predicted", "annotated", "left_out")


@dataclass(frozen=True)
class ReviewInputs:
    """The files that a review is made from.

    Parameters
    ----------
    records : sequence of str
        Of the inspection of all slides of the sheet.
    infos, locations, outlines : sequence of str
        ``info`` and ``location`` of readable slides, and their predicted lesions (GeoJSON), in the same order.
    annotations : sequence of str
        Canonical annotations, of the slides that have one.
    metrics : sequence of str
        Files of :func:`lesionmap.evaluation.evaluate.evaluate_slide`.
    slide_table : str
        Table of :func:`lesionmap.evaluation.summary.summarise`.
    """

    records: Sequence[str]
    infos: Sequence[str]
    locations: Sequence[str]
    outlines: Sequence[str]
    annotations: Sequence[str]
    metrics: Sequence[str]
    slide_table: str


def write_review(inputs: ReviewInputs, folder: str) -> None:
    """Write the folder of a review, and say what was left out.

    It has ``outlines/<slide>.geojson`` to drag onto the slide in QuPath, ``slides.tsv`` with their paths, a how-to, a
    script that adds all slides to a QuPath project, and in ``before/`` the metrics of this run, with which the report
    compares the next model. Other files in the folder stay.

    Raises
    ------
    StorageError
        If a file of outlines has been replaced by another, which may be somebody's work. Nothing is written then.
    """
    target = Path(folder)
    _refuse_replaced(target / OUTLINES)
    annotations = {Path(path).stem: path for path in usable(inputs.annotations)}
    rows = {record["slide"]: _left_out(record) for record in map(read_json, inputs.records)}
    with folder_written_whole(target / BEFORE) as before:
        (before / "slides").mkdir()
        for path in (*usable(inputs.metrics), inputs.slide_table):
            shutil.copyfile(path, before / "slides" / Path(path).name if path.endswith(".json") else before / TABLE)
    for info, location, outlines in zip(inputs.infos, inputs.locations, inputs.outlines, strict=True):
        slide = Path(info).stem
        if reason := quarantined(outlines):
            rows[slide]["left_out"] = f"{reason.stage}: {reason.finding}"
        else:
            rows[slide] |= _written(target, (info, location, outlines), annotations.get(slide))
    _remove_others(target / OUTLINES, {row["outlines"] for row in rows.values()})
    write_text(target / HOWTO, (TEMPLATES / HOWTO).read_text(encoding="utf-8"))
    quoted = str(target.resolve()).replace("\\", "\\\\").replace("'", "\\'")
    write_text(target / SCRIPT, (TEMPLATES / SCRIPT).read_text(encoding="utf-8").replace("FOLDER", quoted))
    write_table(target / TABLE, rows.values(), COLUMNS)
    sys.stderr.write("\n".join(_said(list(rows.values()), folder)) + "\n")


def _refuse_replaced(folder: Path) -> None:
    for path in sorted(folder.glob("*.geojson")):
        if not _is_ours(path):
            raise StorageError(
                stage="review",
                finding=f"{path} is not as a review has written it: it may hold somebody's corrections",
                remedy="move it out of the folder of results, name it in the slide sheet's column annotation, and run "
                "snakemake review again if you still want to",
            )


def _is_ours(path: Path) -> bool:
    with open(path, encoding="utf-8", errors="replace") as stream:
        return stream.read(len(STAMP)) == STAMP


def _remove_others(folder: Path, kept: set[str]) -> None:
    """Remove the outlines of slides that are no longer in the sheet or have no lesion map."""
    for path in folder.glob("*.geojson"):
        if f"{OUTLINES}/{path.name}" not in kept:
            path.unlink()


def _left_out(record: dict[str, Any]) -> dict[str, Any]:
    """A slide's row before anything is written of it; with the reason, if its inspection has refused it."""
    why = f"{record['stage']}: {record['finding']}" if record["verdict"] != "ok" else ""
    return {"slide": record["slide"], "split": record["split"], "left_out": why} | dict.fromkeys(COLUMNS[2:-1], "")


def _written(folder: Path, paths: tuple[str, str, str], annotation: str | None) -> dict[str, Any]:
    """Write the outlines of a slide; what its row says of them."""
    info, lesions = load_info(*paths[:2]), read_json(paths[2])
    predicted, annotated = review_outlines(lesions, read_json(annotation) if annotation else None, info)
    features = ",\n".join(json.dumps(feature) for feature in (*annotated, *predicted))
    name = f"{OUTLINES}/{info.slide}.geojson"
    write_text(folder / name, f'{STAMP}{VERSION}", "features": [\n{features}\n]}}\n')
    place = info.path if is_remote(info.path) else str(Path(info.path).resolve())
    return {"path": place, "outlines": name, "predicted": len(predicted), "annotated": len(annotated)}


def _said(rows: Sequence[dict[str, Any]], folder: str) -> Iterator[str]:
    shown = [row for row in rows if row["outlines"]]
    lesions = counted(sum(row["predicted"] for row in shown), "predicted lesion")
    yield f"{folder} has {counted(len(shown), 'slide')} with {lesions} to correct: {folder}/{HOWTO} says how."
    for row in rows:
        if row["left_out"]:
            yield f"  left out: {row['slide']} is in quarantine ({row['left_out']})"
