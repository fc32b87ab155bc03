"""The manifest: the table of the slides that passed inspection."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lesionmap.annotations.classes import CORRECTIONS
from lesionmap.evaluation.leakage import LEAKED, Seen, group_of
from lesionmap.files.model_metadata import load_metadata
from lesionmap.files.records import read_json, read_table, write_table
from lesionmap.jobs.quarantine import usable
from lesionmap.slides.sheet import SlideRow

DICOM = "dicom"  # OpenSlide's name for the vendor
MANIFEST = ["slide", "split", "vendor", "mpp", "mpp_source", "width", "height", "flags", "identity"]
ANNOTATIONS = ["slide", "sha256", "second_sha256", *CORRECTIONS]


def build_manifest(records: Sequence[str], manifest: str) -> None:
    """Write the table of the slides that passed inspection.

    Parameters
    ----------
    records : sequence of str
        JSON files of :func:`lesionmap.slides.inspection.inspect_slide`.
    manifest : str
        TSV.
    """
    slides = map(read_json, records)
    write_table(manifest, [_manifest_row(slide) for slide in slides if slide["verdict"] == "ok"], MANIFEST)


def _manifest_row(slide: dict[str, Any]) -> dict[str, Any]:
    info = slide["info"]
    width, height = info["size_lv0"]
    metadata = {key: info[key] for key in ("vendor", "mpp", "identity")}
    flagged = {"mpp_source": slide["resolution"]["source"], "flags": "; ".join(slide["flags"])}
    return {"slide": slide["slide"], "split": slide["split"], "width": width, "height": height} | metadata | flagged


def list_annotations(identities: Sequence[str], output: str, second: Sequence[str] = ()) -> None:
    """Write the table of annotations that can be used, with the SHA-256 of their canonical form.

    Parameters
    ----------
    identities : sequence of str
        JSON files ``<slide>.json`` of :func:`lesionmap.files.records.write_identity`.
    output : str
        TSV; ``second_sha256`` is empty without the annotation of a second reader. The other columns count the outlines
        that a review has corrected; they are empty if the annotation does not come from one.
    second : sequence of str
        The same files of the annotations of second readers.
    """
    of_second = {Path(path).stem: read_json(path)["sha256"] for path in usable(second)}
    rows = [{"slide": Path(path).stem} | read_json(path) for path in usable(identities)]
    rows = [row | {"second_sha256": of_second.get(row["slide"], "")} | (row["review"] or {}) for row in rows]
    write_table(output, rows, ANNOTATIONS)


def good_slides(manifest: str, splits: Sequence[str]) -> list[str]:
    """Ids of the readable slides of the given splits, in the sheet's order."""
    return [row["slide"] for row in read_table(manifest) if row["split"] in splits]


def segmented_slides(manifest: str, dicom: str) -> list[str]:
    """Ids of the readable slides whose lesions are written as DICOM; with ``auto``, those of the DICOM slides."""
    return [row["slide"] for row in read_table(manifest) if is_segmented(row["vendor"], dicom)]


def is_segmented(vendor: str | None, dicom: str) -> bool:
    """Whether the lesions of a slide of some vendor are written as DICOM, with ``exports.dicom`` as given."""
    return dicom == "always" or (dicom, vendor) == ("auto", DICOM)


def planned_leaks(manifest: str, rows: Mapping[str, SlideRow], model: str | None) -> dict[str, str]:
    """Slides to be evaluated that are not independent of the model, and why, in the sheet's order.

    Parameters
    ----------
    rows : mapping of str to SlideRow
        The slide sheet.
    model : str or None
        An existing model; None: the model is trained on the sheet's slides.
    """
    readable = [row for row in read_table(manifest) if row["slide"] in rows]
    patients = {slide: row.patient for slide, row in rows.items()}
    if model:
        seen = Seen.of(load_metadata(model))
    else:
        splits = {"training_slides": "train", "validation_slides": "val"}
        slides = {
            name: {row["slide"]: row["identity"] for row in readable if row["split"] == split}
            for name, split in splits.items()
        }
        seen = Seen.of(slides, patients)
    judged = (row for row in readable if row["split"] in ("val", "test"))
    leaks = {row["slide"]: (row["split"], seen.leakage(row["identity"], patients[row["slide"]])) for row in judged}
    return {slide: leakage for slide, (split, leakage) in leaks.items() if group_of(split, leakage) == LEAKED}
