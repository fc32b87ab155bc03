"""A small cohort: one good slide, an odd one, and one in quarantine since its inspection."""

import pytest
from lesionmap.files.records import write_json
from lesionmap.run.conclusion import RunTables
from lesionmap.run.manifest import build_manifest
from lesionmap.run.quarantine_tables import RunFiles, list_quarantine

INFO = {"vendor": "aperio", "mpp": 0.25, "identity": "f" * 64, "size_lv0": [30, 20]}
GOOD = {"verdict": "ok", "flags": [], "resolution": {"source": "file"}, "info": INFO}
BAD = {"verdict": "quarantined", "stage": "inspect_slide", "finding": "it is empty", "remedy": "copy it again"}


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
    names = ("headline.txt", "manifest.tsv", "quarantine.tsv", "unreadable.tsv", "failed_exports.tsv")
    made = RunTables(*(str(tmp_path / name) for name in names))
    (tmp_path / "headline.txt").write_text("Dice 0.9\n")
    build_manifest(records, made.manifest)
    list_quarantine(RunFiles(records), made.quarantine, made.unreadable, made.failed_exports)
    return made
