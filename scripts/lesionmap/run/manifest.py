"""The manifest: the table of the slides that passed inspection."""

from collections.abc import Sequence
from typing import Any

from lesionmap.files.records import read_json, read_table, write_table

DICOM = "dicom"  # OpenSlide's name for the vendor
MANIFEST = ["slide", "split", "vendor", "mpp", "mpp_source", "width", "height", "flags", "identity"]


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
    oddities = {"mpp_source": slide["resolution"]["source"], "flags": "; ".join(slide["flags"])}
    return {"slide": slide["slide"], "split": slide["split"], "width": width, "height": height} | metadata | oddities


def good_slides(manifest: str, splits: Sequence[str]) -> list[str]:
    """Ids of the readable slides of the given splits, in the sheet's order."""
    return [row["slide"] for row in read_table(manifest) if row["split"] in splits]


def segmented_slides(manifest: str, dicom: str) -> list[str]:
    """Ids of the readable slides whose lesions are written as DICOM; with ``auto``, those of the DICOM slides."""
    return [row["slide"] for row in read_table(manifest) if is_segmented(row["vendor"], dicom)]


def is_segmented(vendor: str | None, dicom: str) -> bool:
    """Whether the lesions of a slide of some vendor are written as DICOM, with ``exports.dicom`` as given."""
    return dicom == "always" or (dicom, vendor) == ("auto", DICOM)
