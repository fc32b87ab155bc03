import re

import pandas as pd
import pytest
from lesionmap.experiments.curves import plot_learning_curves_of_variants, plot_variants
from lesionmap.files.records import write_json


def histories(folder, **variants):
    """History files of variants: a table for each fold."""
    paths = []
    for variant, tables in variants.items():
        for fold, table in enumerate(tables, 1):
            path = folder / variant / "seed_0" / f"fold_{fold}" / "history.csv"
            path.parent.mkdir(parents=True)
            pd.DataFrame(table).to_csv(path, index=False)
            paths.append(str(path))
    return paths


def history(*losses, used=1, view="low"):
    epochs = list(range(1, len(losses) + 1))
    return {
        "epoch": epochs,
        f"val_{view}_loss": losses,
        f"val_{view}_dice": [1 - loss for loss in losses],
        "used": [int(epoch == used) for epoch in epochs],
    }


def texts(svg):
    return set(re.findall(r"<!-- (.*?) -->", svg.read_text()))


def test_each_variant_has_a_column_with_its_views(tmp_path):
    paths = histories(
        tmp_path,
        plain=[history(0.5, 0.4, used=2), history(0.6, 0.7, 0.5)],
        tiles=[history(0.3, view="high")],
    )
    plot_learning_curves_of_variants(paths, str(tmp_path / "curves.svg"))
    found = texts(tmp_path / "curves.svg")
    assert {"plain", "tiles", "low view, mean of 2", "high view, mean of 1"} <= found
    assert "fused view, mean of 2" not in found


def test_equal_histories_give_equal_files(tmp_path):
    paths = histories(tmp_path, plain=[history(0.5, 0.4)])
    for name in ("a.svg", "b.svg"):
        plot_learning_curves_of_variants(paths, str(tmp_path / name))
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_a_variant_without_validation_says_so(tmp_path):
    paths = histories(tmp_path, plain=[{"epoch": [1], "train_low_loss": [0.5], "used": [1]}])
    plot_learning_curves_of_variants(paths, str(tmp_path / "curves.svg"))
    assert "not measured" in texts(tmp_path / "curves.svg")


def row(variant, metric, value, low=None, high=None):
    return {"variant": variant, "metric": metric, "value": value, "low": low, "high": high}


@pytest.mark.parametrize("n", [1, 3])
def test_variants_stand_below_each_other_with_their_intervals(tmp_path, n):
    names = ["first", "second", "third"][:n]
    rows = [row(name, metric, 0.5, 0.4, 0.7) for name in names for metric in ("slide_mean_dice", "dice", "auroc")]
    rows[0] = row("first", "slide_mean_dice", None)
    write_json(tmp_path / "summary.json", {"held_out": rows})
    plot_variants(str(tmp_path / "summary.json"), str(tmp_path / "variants.svg"))
    found = texts(tmp_path / "variants.svg")
    assert {*names, "undefined", "mean Dice of slides"} <= found


def test_no_variant_could_be_judged(tmp_path):
    write_json(tmp_path / "summary.json", {"held_out": []})
    plot_variants(str(tmp_path / "summary.json"), str(tmp_path / "variants.svg"))
    assert "mean Dice of slides" in texts(tmp_path / "variants.svg")
