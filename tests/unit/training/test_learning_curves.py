"""Learning curves of any history: what was measured is drawn, nothing else, and the published epoch is marked."""

import re

import pandas as pd
from lesionmap.training.learning_curves import plot_learning_curves, published_epoch

EPOCHS = [1, 2, 3]
HISTORY = pd.DataFrame({"epoch": EPOCHS, "learning_rate": [0.1, 0.05, 0.03], "train_low_loss": [0.3, 0.2, 0.1]})
HISTORY["used"] = [0, 0, 1]
PANEL_PT = 324
TITLES = ("Focal loss", "Dice, validation slides", "AUROC, validation slides")


def random_augmentation(folder, history, name="curves"):
    history.to_csv(folder / "history.csv", index=False)
    plot_learning_curves(str(folder / "history.csv"), str(folder / f"{name}.svg"))
    return (folder / f"{name}.svg").read_text()


def texts(svg):
    """What the picture says, in the order of its panels."""
    return re.findall(r"<!-- (.*?) -->", svg)


def with_columns(*names):
    return HISTORY.assign(**{name: [0.5, 0.6, 0.7] for name in names})


def test_a_panel_for_each_figure_and_a_line_for_each_view(tmp_path):
    views = ("low", "fused", "high")
    validation = [f"val_{view}_{figure}" for view in views for figure in ("loss", "dice", "auroc")]
    svg = random_augmentation(tmp_path, with_columns(*(f"train_{view}_loss" for view in views), *validation))
    said = texts(svg)
    assert [text for text in said if text in TITLES] == list(TITLES)
    assert f'width="{3 * PANEL_PT}pt"' in svg
    assert [said.count(f"train, {view}") for view in views] == [1, 1, 1]
    assert [said.count(f"val, {view}") for view in views] == [3, 3, 3]
    assert all(f"stroke: {colour}" in svg for colour in ("#0072b2", "#d55e00", "#009e73"))


def test_a_schedule_of_one_view_has_its_lines_alone(tmp_path):
    history = with_columns("train_high_loss", "val_high_loss", "val_high_dice").drop(columns="train_low_loss")
    said = texts(random_augmentation(tmp_path, history))
    assert [text for text in said if text in TITLES] == list(TITLES[:2])
    assert {text for text in said if text.startswith(("train, ", "val, "))} == {"train, high", "val, high"}


def test_without_validation_there_is_one_panel(tmp_path):
    svg = random_augmentation(tmp_path, HISTORY)
    assert f'width="{PANEL_PT}pt"' in svg
    assert "used: epoch 3" in texts(svg)


def test_a_figure_that_is_undefined_in_every_epoch_has_no_panel(tmp_path):
    history = with_columns("val_low_loss", "val_low_dice").assign(val_low_auroc=[None] * 3, val_fused_dice=[None] * 3)
    said = texts(random_augmentation(tmp_path, history))
    assert [text for text in said if text in TITLES] == list(TITLES[:2])
    assert "val, fused" not in said


def test_one_epoch_is_drawn_at_its_number(tmp_path):
    said = texts(random_augmentation(tmp_path, HISTORY[:1].assign(used=1)))
    assert said[0] == "1"
    assert not any(text.startswith(("0.9", "1.0")) for text in said)


def test_equal_histories_give_equal_bytes(tmp_path):
    history = with_columns("val_low_loss", "val_low_auroc")
    assert random_augmentation(tmp_path, history, "a") == random_augmentation(tmp_path, history, "b")
    assert "dc:date" not in random_augmentation(tmp_path, history)


def test_the_published_epoch_is_the_one_that_is_marked_as_used(tmp_path):
    history = HISTORY.assign(used=[0, 1, 0])
    assert published_epoch(history) == 2
    assert "used: epoch 2" in texts(random_augmentation(tmp_path, history))
