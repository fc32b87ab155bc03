"""docs/tables.md has every column that the tables of a run have."""

import re

import pytest
from lesionmap.evaluation import findings, groups, model_comparison, summary
from lesionmap.experiments import costs, folds, table
from lesionmap.lesions import export
from lesionmap.metrics.boundaries import BOUNDARY_METRICS
from lesionmap.metrics.pixels import Histograms, binary_metrics
from lesionmap.review import folder
from lesionmap.run.manifest import ANNOTATIONS, MANIFEST
from lesionmap.run.quarantine_tables import QUARANTINE, UNREADABLE
from lesionmap.stain import comparison
from lesionmap.tiles import summary as tiles

TABLES = {
    "manifest.tsv": MANIFEST,
    "quarantine.tsv": QUARANTINE,
    "results/lesions.tsv": (*findings.LESIONS, *findings.ANNOTATED),
    "results/slides.tsv": findings.SLIDES,
    "unreadable.tsv": UNREADABLE,
    "annotations.tsv": ANNOTATIONS,
    "review/slides.tsv": folder.COLUMNS,
    ";/lesions.tsv": (*export.COLUMNS, export.UNCERTAINTY),
    "metrics/slides.tsv": (
        *("leakage", *binary_metrics(Histograms.empty(), threshold=0.5)),
        *(*BOUNDARY_METRICS, *summary.OF_SLIDES),
    ),
    "metrics/cohort.tsv": (*summary.OF_COHORT, *summary.OF_READERS, *groups.COLUMNS, *model_comparison.COLUMNS),
    "tiles/summary.tsv": tiles.COLUMNS,
    "stain/cohort.tsv": comparison.COLUMNS,
    "folds.tsv": (
        *(*folds.COLUMNS, *table.OF_TABLE, *table.OF_DIFFERENCES),
        *(*table.OF_SLIDES, *costs.OF_COSTS),
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_every_column_has_a_line_with_its_unit(request, name):
    text = (request.config.rootpath / "docs/tables.md").read_text(encoding="utf-8")
    shared, *sections = text.split("\n## ")[1:]
    (section,) = [part for part in sections if name in part.splitlines()[0]]
    rows = [line.split(" | ") for line in (shared + section).splitlines() if line.startswith("| `")]
    assert all(len(row) == 3 for row in rows)
    documented = {column for row in rows for column in re.findall(r"`(\w+)`", row[0])}
    assert set(TABLES[name]) - documented == set()
