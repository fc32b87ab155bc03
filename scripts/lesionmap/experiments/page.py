"""The page of an experiment: variants side by side, their differences, folds, learning curves and costs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from lesionmap.files.records import read_json, read_table, write_text
from lesionmap.report.templating import page_templates

TEMPLATES = Path(__file__).parent / "templates/page"
SHOWN = {  # metrics of the first table
    "slide_mean_dice": "Dice, mean of slides",
    "dice": "Dice",
    "auroc": "AUROC",
    "slide_mean_nsd": "NSD, mean of slides",
    "froc_score": "FROC score",
    "lesion_recall": "Lesions found",
    "slide_auroc_area": "AUROC, slides",
}


def write_page(
    summary: str,
    slides: str,
    folds: str,
    output: str,
    *,
    plots: Mapping[str, str],
    variants: Mapping[str, str],
    n_folds: int,
) -> None:
    """Write the page; it opens from disk without a network.

    Parameters
    ----------
    summary, slides : str
        JSON, and table of slides, of :func:`lesionmap.experiments.table.compare_variants`.
    folds : str
        Table of :func:`lesionmap.experiments.folds.assign_folds`.
    plots : mapping of str to str
        SVG files beside the page, by title.
    variants : mapping of str to str
        What each variant changes, in words.
    """
    content = read_json(summary)
    held_out, tested = (_by_variant(content.pop(kind)) for kind in ("held_out", "tested"))
    page = page_templates(TEMPLATES).get_template("experiments.html.j2")
    shown = {key: title for key, title in SHOWN.items() if any(key in rows for rows in held_out.values())}
    text = page.render(
        content,
        shown=shown,
        held_out=held_out,
        tested=tested,
        compared=[row for row in content["differences"] if row["metric"] in shown],
        plots={title: Path(path).name for title, path in plots.items()},
        variants=variants,
        fold_table=_sizes(read_table(folds), n_folds),
        of_slides=_dice_of_slides(read_table(slides)),
    )
    write_text(output, text)


def _by_variant(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Entries by variant and metric."""
    found = dict[str, dict[str, Mapping[str, Any]]]()
    for row in rows:
        found.setdefault(row["variant"], {})[row["metric"]] = row
    return found


def _dice_of_slides(rows: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """Fold of each held-out slide, and its Dice in each variant: mean over seeds, None where one is undefined."""
    found = dict[str, dict[str, Any]]()
    for row in rows:
        if row["fold"] != "NA":
            of_slide = found.setdefault(row["slide"], {"slide": row["slide"], "fold": row["fold"], "dice": {}})
            of_slide["dice"].setdefault(row["variant"], []).append(row["dice"])
    for of_slide in found.values():
        dice = of_slide["dice"].items()
        of_slide["dice"] = {name: None if "NA" in seeds else fmean(map(float, seeds)) for name, seeds in dice}
    return list(found.values())


def _sizes(rows: Sequence[Mapping[str, str]], n_folds: int) -> list[dict[str, int]]:
    """Slides, patients, slides with lesion and sites of each fold."""
    return [
        {
            "fold": fold,
            "slides": len(inside),
            "patients": len({row["patient"] or f"slide {row['slide']}" for row in inside}),
            "lesion": sum(row["lesion"] == "1" for row in inside),
            "sites": len({row["site"] for row in inside if row["site"]}),
        }
        for fold in range(1, n_folds + 1)
        for inside in [[row for row in rows if row["fold"] == str(fold)]]
    ]
