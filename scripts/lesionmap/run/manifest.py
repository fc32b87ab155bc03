"""The cohort: which slides go on, which are in quarantine and why, and what the run ends with."""

from collections.abc import Sequence
from typing import Any

from lesionmap.files.records import _read_table, read_json, write_table

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
    facts = {key: info[key] for key in ("vendor", "mpp", "identity")}
    oddities = {"mpp_source": slide["resolution"]["source"], "flags": "; ".join(slide["flags"])}
    return {"slide": slide["slide"], "split": slide["split"], "width": width, "height": height} | facts | oddities


def good_slides(manifest: str, splits: Sequence[str]) -> list[str]:
    """Ids of the readable slides of some splits, in the sheet's order."""
    table = _read_table(manifest)
    return [str(slide) for slide in table.loc[table["split"].isin(splits), "slide"]]


def segmented_slides(manifest: str, dicom: str) -> list[str]:
    """Ids of the readable slides whose lesions are written as DICOM: ``always``, ``never``, ``auto`` (DICOM slides)."""
    table = _read_table(manifest)
    wanted = table["vendor"] == "dicom" if dicom == "auto" else [dicom == "always"] * len(table)
    return [str(slide) for slide in table.loc[wanted, "slide"]]
