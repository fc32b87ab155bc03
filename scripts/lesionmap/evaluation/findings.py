"""What a run found: a row for each lesion and for each slide of the sheet, evaluated or not."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lesionmap.evaluation.findings_in_words import MAPPED
from lesionmap.evaluation.leakage import group_of
from lesionmap.files.records import read_json, read_table, write_table
from lesionmap.formatting import counted, in_table
from lesionmap.jobs.quarantine import quarantined, usable
from lesionmap.metrics.lesion_sizes import SIZE_NAMES, SIZES_UM

OF_ANNOTATION = "annotation: "  # begins flags of where an annotation lies
UNLIKE = "unlike the other slides: "  # begins the flag of a stain that is
VISIBLE_SEAMS = 2.0  # 1: tile borders do not show; maps of tiles that do not overlap have 8 to 19
SEAMS = (
    "borders of tiles show in the map ({:.1f}, 1 is none), which may cut a lesion in two: see seam_measure in "
    "config/README.md"
)
QUARANTINED = "quarantined"
LESIONS = (
    *("slide", "patient", "split", "evaluated_as", "lesion", "id", "area_mm2", "tissue_percent", "diameter_mm", "size"),
    *("centroid_x_px", "centroid_y_px", "centroid_x_um", "centroid_y_um", "mean_probability", "max_probability"),
    "verdict",
)
ANNOTATED = (
    *("slide", "patient", "split", "evaluated_as", "lesion", "outlines", "area_mm2"),
    *("centroid_x_px", "centroid_y_px", "centroid_x_um", "centroid_y_um", "verdict"),
)
COUNTS = ("matched", "merged", "false", "not judged")
SLIDES = (
    *("slide", "patient", "split", "evaluated_as", "state", "lesions", "lesion_mm2", "largest_mm2", "tissue_mm2"),
    *("tissue_percent", *(f"{name.replace(' ', '_')}_lesions" for name in COUNTS)),
    *(
        "annotated_lesions",
        "found_lesions",
        "missed_lesions",
        "dice",
        "auroc",
        "seam_measure",
        "stain_verdict",
        "flags",
    ),
)


@dataclass(frozen=True)
class SlideFiles:
    """Files of the sheet's slides; those of slides in quarantine are left out.

    Parameters
    ----------
    records : sequence of str
        Files of :func:`lesionmap.slides.inspection.inspect_slide`, one for each slide of the sheet.
    lesions : sequence of (str, str)
        Record and table of :func:`lesionmap.lesions.find_lesions.find_lesions`.
    maps : sequence of str
        Records of :func:`lesionmap.inference.map_slide.map_slide`.
    stains : sequence of str
        Files of :func:`lesionmap.stain.match.match_slide`.
    checks : sequence of str
        Files of :func:`lesionmap.annotations.placement.check_annotation`.
    """

    records: Sequence[str]
    lesions: Sequence[tuple[str, str]]
    maps: Sequence[str]
    stains: Sequence[str]
    checks: Sequence[str]


@dataclass(frozen=True)
class CohortFiles:
    """Tables of the run: metrics of slides, stains, unreadable parts, failed exports."""

    metrics: str
    stains: str
    unreadable: str
    failed_exports: str


@dataclass(frozen=True)
class FindingsFiles:
    """Where findings are written, TSV: predicted lesions, annotated lesions, slides."""

    lesions: str
    annotated: str
    slides: str


def list_findings(
    slides: SlideFiles, cohort: CohortFiles, files: FindingsFiles, patients: Mapping[str, str | None]
) -> None:
    """Write a row for each lesion and each slide (docs/tables.md).

    Parameters
    ----------
    patients : mapping of str to str or None
        Patient of each slide, if the sheet names one.
    """
    found = {record["slide"]: (record, read_table(table)) for record, table in _lesions_of(slides.lesions)}
    metrics = {row["slide"]: row for row in read_table(cohort.metrics)}
    seams = {record["slide"]: seam_measure(record) for record in map(read_json, usable(slides.maps))}
    stains = {match["slide"]: match["fitted"]["verdict"] for match in map(read_json, usable(slides.stains))}
    flags = _flags(slides, cohort, seams)
    lesions, annotated, rows = [], [], []
    for record in map(read_json, slides.records):
        name = record["slide"]
        judged = metrics.get(name)
        about = {"slide": name, "patient": patients.get(name) or "", "split": record["split"]}
        about["evaluated_as"] = group_of(record["split"], judged["leakage"]) if judged else ""
        row = about | {"state": MAPPED if name in found else QUARANTINED, "flags": "; ".join(flags[name])}
        if name in found:
            summary, table = found[name]
            info = record["info"]
            lesions += [about | _lesion_row(one, summary, info) for one in table]
            annotated += [about | _annotated_row(one, info["mpp"]) for one in summary["annotated"] or ()]
            row |= _slide_row(summary, table) | {key: judged[key] for key in ("dice", "auroc") if judged}
            row |= {"seam_measure": in_table(seams.get(name)), "stain_verdict": stains.get(name, "")}
        rows.append(row)
    write_table(files.lesions, lesions, LESIONS)
    write_table(files.annotated, annotated, ANNOTATED)
    write_table(files.slides, [dict.fromkeys(SLIDES, "NA") | row for row in rows], SLIDES)


def _lesions_of(pairs: Sequence[tuple[str, str]]) -> Iterator[tuple[dict[str, Any], str]]:
    return ((read_json(record), table) for record, table in pairs if not quarantined(record))


def seam_measure(record: Mapping[str, Any]) -> float | None:
    """How far tile borders show in a map, from its record; of an ensemble the largest of its models."""
    members = record.get("members", [record])
    known = [member["seam_measure"] for member in members if member["seam_measure"] is not None]
    return max(known, default=None)


def _flags(slides: SlideFiles, cohort: CohortFiles, seams: Mapping[str, float | None]) -> dict[str, list[str]]:
    """What is to be looked at on each slide that is used, each thing once."""
    found: dict[str, dict[str, None]] = defaultdict(dict)

    def add(slide: str, *texts: str) -> None:
        found[slide] |= dict.fromkeys(text.replace(";", ",") for text in texts)  # the table parts them by "; "

    for record in map(read_json, slides.records):
        if record["verdict"] == "ok":
            add(record["slide"], *record["flags"])
    for check in map(read_json, usable(slides.checks)):
        add(check["slide"], *(f"{OF_ANNOTATION}{flag}" for flag in check["flags"]))
    for match in map(read_json, usable(slides.stains)):
        add(match["slide"], *match["flags"])
    for row in read_table(cohort.stains):
        if row["outlier"]:
            add(row["slide"], f"{UNLIKE}{row['outlier'].replace('_', ' ')}")
    for slide, measure in seams.items():
        if measure is not None and measure > VISIBLE_SEAMS:
            add(slide, SEAMS.format(measure))
    for (slide, stage), n in _unreadable(cohort.unreadable).items():
        add(slide, f"{stage}: {counted(n, 'part')} cannot be read and {'is' if n == 1 else 'are'} left out")
    for row in read_table(cohort.failed_exports):
        add(row["slide"], f"{row['stage']} failed: {row['finding']}")
    return defaultdict(list, {slide: list(texts) for slide, texts in found.items()})


def _unreadable(table: str) -> dict[tuple[str, str], int]:
    """Number of unreadable parts by slide and stage."""
    found: dict[tuple[str, str], int] = defaultdict(int)
    for row in read_table(table):
        found[row["slide"], row["stage"]] += 1
    return found


def _percent(part_mm2: float, tissue_mm2: float) -> str:
    return f"{100 * part_mm2 / tissue_mm2:.4f}" if tissue_mm2 else "NA"


def _place(xy_lv0: Sequence[float], mpp: float) -> dict[str, str]:
    """A centroid in level-0 pixels of the slide file, and in µm."""
    (x, y) = xy_lv0
    place = {"centroid_x_px": f"{x:.2f}", "centroid_y_px": f"{y:.2f}"}
    return place | {"centroid_x_um": f"{x * mpp:.2f}", "centroid_y_um": f"{y * mpp:.2f}"}


def _lesion_row(row: Mapping[str, str], summary: Mapping[str, Any], info: Mapping[str, Any]) -> dict[str, str]:
    """A predicted lesion, from its row in the slide's table, whose coordinates begin at the slide's bounds."""
    kept = {
        key: row[key] for key in ("id", "area_mm2", "diameter_mm", "mean_probability", "max_probability", "verdict")
    }
    corner = info["bounds_xy_lv0"]
    xy = [float(row[f"centroid_{axis}"]) + start for axis, start in zip("xy", corner, strict=True)]
    size = SIZE_NAMES[int(np.searchsorted(SIZES_UM, 1000 * float(row["diameter_mm"]), side="right")) - 1]
    share = _percent(float(row["area_mm2"]), summary["tissue_mm2"])
    return kept | {"lesion": row["name"], "tissue_percent": share, "size": size} | _place(xy, info["mpp"])


def _annotated_row(lesion: Mapping[str, Any], mpp: float) -> dict[str, Any]:
    verdict = {True: "found", False: "missed", None: "not judged"}[lesion["found"]]
    kept = {key: lesion[key] for key in ("lesion", "outlines", "area_mm2")}
    return kept | {"verdict": verdict} | _place(lesion["centroid_xy_lv0"], mpp)


def _slide_row(summary: Mapping[str, Any], table: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    areas = [float(row["area_mm2"]) for row in table]
    row: dict[str, Any] = {"lesions": len(table), "lesion_mm2": sum(areas), "largest_mm2": max(areas, default=0.0)}
    row |= {"tissue_mm2": summary["tissue_mm2"], "tissue_percent": _percent(sum(areas), summary["tissue_mm2"])}
    if summary["verdicts"] is not None:
        row |= {f"{name.replace(' ', '_')}_lesions": n for name, n in summary["verdicts"].items()}
        judged = [lesion["found"] for lesion in summary["annotated"] if lesion["found"] is not None]
        found = sum(judged)
        row |= {"annotated_lesions": len(judged), "found_lesions": found, "missed_lesions": len(judged) - found}
    return {key: in_table(value) for key, value in row.items()}
