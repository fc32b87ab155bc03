"""The cohort after inspection: which slides go on, which are in quarantine and why."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lesionmap.errors import LesionMapError, SettingsError
from lesionmap.files import read_json, write_text, written_whole

MANIFEST = ["slide", "split", "vendor", "mpp", "width", "height", "identity"]
QUARANTINE = ["slide", "split", "stage", "finding", "remedy"]


def build_manifest(records: Sequence[str], manifest: str, quarantine: str, *, reference: str | None) -> None:
    """Write the tables of readable and of quarantined slides.

    Parameters
    ----------
    records : sequence of str
        JSON files of :func:`lesionmap.inspection.inspect_slide`.
    manifest, quarantine : str
        TSV files.
    reference : str or None
        The stain reference, where one is needed.

    Raises
    ------
    SettingsError
        If the stain reference is in quarantine.
    """
    slides = [read_json(path) for path in records]
    good = [_manifest_row(slide) for slide in slides if slide["verdict"] == "ok"]
    bad = [{key: slide[key] for key in QUARANTINE} for slide in slides if slide["verdict"] != "ok"]
    for row in bad:
        if row["slide"] == reference:
            raise SettingsError(
                stage="build_manifest",
                finding=f"the stain reference '{reference}' is in quarantine: {row['finding']}",
                remedy=f"choose another slide as stain.reference, or: {row['remedy']}",
            )
    _write_table(manifest, good, MANIFEST)
    _write_table(quarantine, bad, QUARANTINE)


def _manifest_row(slide: dict[str, Any]) -> dict[str, Any]:
    info = slide["info"]
    width, height = info["size_lv0"]
    facts = {key: info[key] for key in ("vendor", "mpp", "identity")}
    return {"slide": slide["slide"], "split": slide["split"], **facts, "width": width, "height": height}


def _write_table(path: str, rows: list[dict[str, Any]], columns: list[str]) -> None:
    with written_whole(path) as draft:
        pd.DataFrame(rows, columns=columns).to_csv(draft, sep="\t", index=False)


def good_slides(manifest: str, splits: Sequence[str]) -> list[str]:
    """Ids of the readable slides of some splits, in the sheet's order."""
    table = pd.read_csv(manifest, sep="\t", dtype=str, keep_default_na=False)
    return [str(slide) for slide in table.loc[table["split"].isin(splits), "slide"]]


def conclude(headline: str, quarantine: str, output: str, *, fail: bool) -> None:
    """Show the headline figures and the quarantine table at the end of a run, and fail if the policy says so.

    Raises
    ------
    LesionMapError
        If slides are in quarantine and `fail` is set.
    """
    table = pd.read_csv(quarantine, sep="\t", dtype=str, keep_default_na=False)
    lines = [f"  {row.slide} ({row.stage}): {row.finding}. Remedy: {row.remedy}." for row in table.itertuples()]
    listing = "\n".join([f"{len(lines)} of the sheet's slides in quarantine", *lines])
    text = Path(headline).read_text(encoding="utf-8") + listing + "\n"
    sys.stderr.write(text)
    if lines and fail:
        raise LesionMapError(
            stage="conclude",
            finding=f"everything else is done, but {len(lines)} slides are in quarantine (listed above)",
            remedy="mend or remove those slides, or set on_quarantine: warn",
        )
    write_text(output, text)
