"""The cohort: which slides go on, which are in quarantine and why, and what the run ends with."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lesionmap.errors import LesionMapError
from lesionmap.files import read_json, write_table, write_text

MANIFEST = ["slide", "split", "vendor", "mpp", "mpp_source", "width", "height", "flags", "identity"]


def build_manifest(records: Sequence[str], manifest: str) -> None:
    """Write the table of the slides that passed inspection.

    Parameters
    ----------
    records : sequence of str
        JSON files of :func:`lesionmap.inspection.inspect_slide`.
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


def _read_table(path: str) -> pd.DataFrame:
    return pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)


@dataclass(frozen=True)
class RunTables:
    """What the conclusion is drawn from: paths of the headline figures (text) and of three tables (TSV)."""

    headline: str
    manifest: str
    quarantine: str
    unreadable: str


def conclude(tables: RunTables, output: str, *, fail: bool) -> None:
    """Show headline figures, quarantine and oddities at the end of a run, and fail if the policy says so.

    Raises
    ------
    LesionMapError
        If slides are in quarantine and `fail` is set.
    """
    lines = [*_oddities(tables), *quarantine_lines(tables.quarantine)]
    text = Path(tables.headline).read_text(encoding="utf-8") + "\n".join(lines) + "\n"
    sys.stderr.write(text)
    count = _read_table(tables.quarantine)["slide"].nunique()
    if count and fail:
        raise LesionMapError(
            stage="conclude",
            finding=f"everything else is done, but {count} slides are in quarantine (listed above)",
            remedy="mend or remove those slides, or set on_quarantine: warn",
        )
    write_text(output, text)


def quarantine_lines(quarantine: str) -> Iterator[str]:
    """The quarantine table in words."""
    table = _read_table(quarantine)
    yield f"{table['slide'].nunique()} of the sheet's slides in quarantine"
    for row in table.itertuples():
        yield f"  {row.slide} ({row.stage}): {row.finding}. Remedy: {row.remedy}."


def _oddities(tables: RunTables) -> Iterator[str]:
    manifest, unreadable = _read_table(tables.manifest), _read_table(tables.unreadable)
    refused = set(_read_table(tables.quarantine)["slide"])
    flagged = manifest[(manifest["flags"] != "") & ~manifest["slide"].isin(refused)]
    odd = [f"  {row.slide}: {row.flags}" for row in flagged.itertuples()]
    for (slide, stage), boxes in unreadable.groupby(["slide", "stage"], sort=False):
        odd.append(f"  {slide}, {stage}: {len(boxes)} parts cannot be read and are left out (results/unreadable.tsv)")
    if odd:
        yield from ["used although something is odd:", *odd]
