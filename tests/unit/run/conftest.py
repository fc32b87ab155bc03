"""A small cohort: one good slide, an odd one, and one in quarantine since its inspection."""

from pathlib import Path

import pytest
from lesionmap.evaluation.findings import SLIDES
from lesionmap.files.records import write_json, write_table
from lesionmap.run.conclusion import RunTables
from lesionmap.run.manifest import build_manifest
from lesionmap.run.quarantine_tables import RunFiles, list_quarantine

INFO = {"vendor": "aperio", "mpp": 0.25, "identity": "f" * 64, "size_lv0": [30, 20]}
GOOD = {"verdict": "ok", "flags": [], "resolution": {"source": "file"}, "info": INFO}
BAD = {"verdict": "quarantined", "stage": "inspect_slide", "finding": "it is empty", "remedy": "copy it again"}


class Tables(RunTables):
    """With tables that the conclusion does not read itself."""

    @property
    def unreadable(self) -> str:
        return str(Path(self.slides).parent / "unreadable.tsv")

    @property
    def manifest(self) -> str:
        return str(Path(self.slides).parent / "manifest.tsv")


@pytest.fixture
def records(tmp_path):
    odd = GOOD | {"flags": ["it is pale", 'it is "small"']}
    slides = {"NA": {"split": "train"} | GOOD, "b": {"split": "test"} | odd, "c": {"split": "train"} | BAD}
    for slide, record in slides.items():
        write_json(tmp_path / f"{slide}.json", {"slide": slide} | record)
    return [str(tmp_path / f"{slide}.json") for slide in slides]


@pytest.fixture
def tables(tmp_path, records):
    """All tables of a cohort whose slide c is in quarantine since its inspection."""
    made = Tables(*(str(tmp_path / name) for name in ("slides.tsv", "headline.txt", "quarantine.tsv", "failed.tsv")))
    (tmp_path / "headline.txt").write_text("Dice 0.9\n")
    slides = [
        found("NA", lesions="2", lesion_mm2="1.250000", largest_mm2="0.750000", tissue_percent="2.5000"),
        found("b", flags='it is pale; it is "small"'),
        dict.fromkeys(SLIDES, "NA") | {"slide": "c", "state": "quarantined", "flags": ""},
    ]
    write_table(made.slides, slides, SLIDES)
    build_manifest(records, made.manifest)
    list_quarantine(RunFiles(records), made.quarantine, made.unreadable, made.failed_exports)
    return made


def found(slide: str, **changes: str) -> dict[str, str]:
    """A row of a mapped slide, without lesions or annotation unless given."""
    row = {"slide": slide, "state": "mapped", "lesions": "0", "lesion_mm2": "0.000000", "flags": ""}
    return dict.fromkeys(SLIDES, "NA") | row | changes
