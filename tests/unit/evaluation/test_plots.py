"""Metrics of a cohort: what is drawn is what the summary holds, and what cannot be drawn is said."""

import json
import re
from dataclasses import astuple
from xml.etree import ElementTree

import numpy as np
import pytest
from evaluated import lesion, random_slide, record_of, scores_at, scores_of
from lesionmap.evaluation.curves import precision_recall_points, roc_points
from lesionmap.evaluation.leakage import UNSEEN, Seen
from lesionmap.evaluation.plots import (
    MetricPlots,
    draw_areas,
    draw_calibration,
    draw_decision_curve,
    draw_froc,
    draw_lesion_sizes,
    draw_precision_recall,
    draw_roc,
    draw_thresholds,
    plot_metrics,
)
from lesionmap.evaluation.summary import SummaryFiles, read_slide_table, summarise
from lesionmap.files.records import write_json
from lesionmap.metrics.froc import FALSE_PER_SLIDE
from lesionmap.metrics.pixels import Histograms
from matplotlib.text import Text

NAMES = ("roc", "precision_recall", "froc", "calibration", "thresholds", "areas", "lesion_sizes", "decision_curve")
DRAWINGS = (
    *(draw_roc, draw_precision_recall, draw_froc, draw_calibration, draw_thresholds, draw_lesion_sizes),
    draw_decision_curve,
)
HOSTILE = "<img src=x onerror=alert(1)>--$x_1$"


def records(*, with_lesion=("test", "val")):
    """Eight test slides, one of which is without lesion, and two validation slides."""
    slides = []
    for n in range(10):
        split = "test" if n < 8 else "val"
        has_lesion = split in with_lesion and n != 2
        slide = record_of(f"s{n}", *random_slide(n, has_lesion=has_lesion), split=split)
        if has_lesion:
            found = [
                lesion(detected_at=200 + n),
                lesion(100, predicted_pixels=0),
                lesion(3000, detected_at=150),
            ]
            slide |= {"lesions": found, "false_positive_scores": scores_at(130 + n)}
        slides.append(slide)
    return slides


def summarised(folder, slides, seen=UNSEEN):
    """Summary and slide table of some records."""
    paths = [str(folder / f"{number}.record.json") for number in range(len(slides))]
    for path, slide in zip(paths, slides, strict=True):
        write_json(path, slide)
    names = ("slides.tsv", "cohort.tsv", "summary.json", "headline.txt", "readers.tsv", "groups.tsv")
    files = SummaryFiles(*(str(folder / name) for name in names))
    summarise(paths, files, 200, seen)
    return files


def splits_of(folder, slides, seen=UNSEEN):
    return json.loads((folder / summarised(folder, slides, seen).summary).read_text())["splits"]


def plotted(folder, slides, seen=UNSEEN):
    """Text of each figure's file by name."""
    files = summarised(folder, slides, seen)
    drawn = MetricPlots(*(str(folder / f"{name}.svg") for name in NAMES))
    plot_metrics(files.summary, files.slides, drawn)
    return {name: (folder / f"{name}.svg").read_text() for name in NAMES}


def by_gid(figure, gid):
    (artist,) = figure.findobj(lambda artist: artist.get_gid() == gid)
    return artist


def points(figure, gid):
    return by_gid(figure, gid).get_xydata()


def said(figure):
    """All text of a figure, line breaks as blanks."""
    return [" ".join(artist.get_text().split()) for artist in figure.findobj(Text)]


def bars(axes):
    """Lower and upper ends of the bars of a panel, one after the other; NaN where there is no bar."""
    return [path.vertices[:, 1].tolist() for lines in axes.collections for path in lines.get_paths()]


@pytest.fixture
def splits(tmp_path):
    return splits_of(tmp_path, records())


def test_every_figure_is_an_svg_that_names_both_splits(tmp_path):
    for name, text in plotted(tmp_path, records()).items():
        assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
        assert {f"{split}: {size}" for split, size in (("test", "8 slides of 8 patients"), ("val", "2 slides"))} <= {
            part for line in re.findall(r"<!-- (.*?) -->", text, re.DOTALL) for part in (line, line[:13], line[:28])
        }, name


def test_equal_summaries_give_equal_bytes(tmp_path):
    assert plotted(tmp_path, records()) == plotted(tmp_path, records())


def test_roc_and_precision_recall_are_drawn_from_the_histograms(splits):
    for draw, name, reckoned in (
        (draw_roc, "roc", roc_points),
        (draw_precision_recall, "precision-recall", precision_recall_points),
    ):
        figure = draw(splits)
        for split, summary in splits.items():
            expected = np.stack(reckoned(Histograms.of_record(summary["histograms"]).counts), axis=1)
            np.testing.assert_array_equal(points(figure, f"{name}-{split}"), expected)


def test_the_threshold_in_use_is_marked_at_its_metrics(splits):
    metrics = splits["test"]["metrics"]
    specificity, recall, precision = (metrics[name]["value"] for name in ("specificity", "recall", "precision"))
    assert points(draw_roc(splits), "used-test").tolist() == [[1 - specificity, recall]]
    assert points(draw_precision_recall(splits), "used-test").tolist() == [[recall, precision]]
    assert by_gid(draw_thresholds(splits), "used-val").get_xdata() == [0.5, 0.5]
    assert "at the threshold in use, 0.5" in said(draw_roc(splits))


def test_the_legend_has_the_figure_and_its_interval(splits):
    entry = splits["test"]["metrics"]["auroc"]
    interval = "{value:.3f} ({low:.3f} to {high:.3f})".format(**entry)
    assert f"test: 8 slides of 8 patients AUROC {interval}" in said(draw_roc(splits))
    alone = splits["val"]["metrics"]["auroc"]["value"]
    assert f"val: 2 slides of 2 patients AUROC {alone:.3f}" in said(draw_roc(splits))


LEAKING = Seen.of({"training_slides": {"t": "sha256 of s1"}, "validation_slides": {"s9": "sha256 of s9"}})


def test_slides_with_leakage_have_a_line_of_their_own_that_says_so(tmp_path):
    slides = records()
    splits = splits_of(tmp_path, slides, LEAKING)
    figure = draw_roc(splits)
    for group, size in (("val", "2 slides of 2 patients"), ("leaked", "1 slide of 1 patient")):
        assert any(f"{group}: {size} (not independent of the model) AUROC " in text for text in said(figure))
    assert any("test: 7 slides of 7 patients AUROC " in text for text in said(figure))
    lines = [by_gid(figure, f"roc-{group}") for group in splits]
    for kind in (lambda line: line.get_color(), lambda line: line.get_linestyle()):
        assert len({kind(line) for line in lines}) == 3
    for text in plotted(tmp_path, slides, LEAKING).values():
        assert ElementTree.fromstring(text) is not None
        assert "leaked" in text
    rows = read_slide_table(str(tmp_path / "slides.tsv"))
    areas_shown = draw_areas(splits, rows)
    (mine,) = (row for row in rows if row["slide"] == "s1")
    mean = (mine["annotated_mm2"] + mine["predicted_mm2"]) / 2
    assert by_gid(areas_shown, "slides-leaked").get_offsets().tolist() == [
        [pytest.approx(mean), pytest.approx(mine["predicted_mm2"] - mine["annotated_mm2"])]
    ]
    assert len(by_gid(areas_shown, "slides-test").get_offsets()) == 7


def test_splits_differ_in_dashes_and_colour(splits):
    lines = [by_gid(draw_roc(splits), f"roc-{split}") for split in ("test", "val")]
    assert lines[0].get_color() != lines[1].get_color()
    assert lines[0].get_linestyle() != lines[1].get_linestyle()


def test_the_froc_curve_is_faint_where_the_map_has_no_more_false_lesions(splits):
    figure = draw_froc(splits)
    last = splits["test"]["froc"]["false_per_slide"][-1]
    assert last == 7 / 8
    assert points(figure, "froc-test")[:, 0].max() <= last
    assert points(figure, "froc-beyond-test")[-1].tolist() == pytest.approx([8, 0.5 * 2])
    dots = points(figure, "dots-test")
    expected = [splits["test"]["metrics"][f"sensitivity_at_{rate:g}"]["value"] for rate in FALSE_PER_SLIDE]
    assert dots[:, 1].tolist() == expected


def test_calibration_has_a_point_for_each_bin_and_its_pixels(splits):
    figure = draw_calibration(splits)
    bins = splits["val"]["calibration"]
    expected = [[row["mean_probability"], row["share_of_lesion"]] for row in bins]
    assert points(figure, "calibration-val").tolist() == expected
    assert points(figure, "pixels-val")[:, 1].tolist() == [row["pixels"] for row in bins]


def test_the_sweep_has_five_metrics_and_the_interval_of_dice(splits):
    figure = draw_thresholds(splits)
    sweep = splits["test"]["sweep"]
    for name in ("dice", "iou", "precision", "recall", "specificity"):
        drawn = points(figure, f"{name}-test")
        expected = [[row["threshold"], np.nan if row[name]["value"] is None else row[name]["value"]] for row in sweep]
        np.testing.assert_array_equal(drawn, expected)
    corners = by_gid(figure, "dice-interval-test").get_paths()[0].vertices
    assert (0.5, sweep[9]["dice"]["low"]) in [tuple(corner) for corner in corners]
    assert (0.5, sweep[9]["dice"]["high"]) in [tuple(corner) for corner in corners]


def test_the_decision_curve_is_that_of_the_pixels(tmp_path):
    """Ten pixels: lesion at 0.9, 0.6 and 0.2; another at 0.7, 0.3 and five at 0.05."""
    probability = np.array([[0.9, 0.6, 0.2, 0.7, 0.3, *[0.05] * 5]])
    mask = np.array([[1, 1, 1, 2, 0, *[0] * 5]], np.uint8)
    splits = splits_of(tmp_path, [record_of("s", scores_of(probability), mask)])
    figure = draw_decision_curve(splits)
    of_map, everything = (points(figure, f"{name}-test") for name in ("map", "everything"))
    assert of_map[:, 0].tolist() == everything[:, 0].tolist() == [row["threshold"] for row in splits["test"]["sweep"]]
    assert of_map[[4, 9, 12, 15], 1] == pytest.approx([0.2 - 1 / 15, 0.1, 0.1 - 0.065 / 0.35, 0.1])
    assert everything[[4, 9], 1] == pytest.approx([0.3 - 0.7 / 3, -0.4])
    assert by_gid(figure, "nothing").get_ydata() == [0, 0]
    top = max(of_map[:, 1].max(), 0.3 - 0.7 / 19)
    assert figure.axes[0].get_ylim() == pytest.approx((-top / 2, 1.1 * top))
    assert {"everything predicted as lesion", "nothing predicted as lesion", "test: 1 slide of 1 patient"} <= set(
        said(figure)
    )


def areas(*pairs):
    """Records of slides whose annotated and marked mm² are given."""
    slide = records()[0]
    return [
        slide | {"slide": f"s{n}", "leakage": "", "annotated_mm2": float(annotated), "predicted_mm2": float(marked)}
        for n, (annotated, marked) in enumerate(pairs)
    ]


def test_areas_are_drawn_as_bland_and_altman_do(tmp_path):
    slides = areas((1, 2), (2, 3), (3, 4), (4, 5), (1, 2), (2, 3), (5, 9))
    figure = draw_areas(splits_of(tmp_path, slides), slides)
    drawn = by_gid(figure, "slides-test").get_offsets().tolist()
    assert drawn == [[1.5, 1], [2.5, 1], [3.5, 1], [4.5, 1], [1.5, 1], [2.5, 1], [7, 4]]
    differences = np.array([1, 1, 1, 1, 1, 1, 4])
    reach = 1.96 * differences.std(ddof=1)
    for name, value in (("difference", 0), ("lower_limit", -reach), ("upper_limit", reach)):
        assert by_gid(figure, f"{name}-test").get_ydata() == pytest.approx([differences.mean() + value] * 2)
    assert [text for text in said(figure) if re.fullmatch(r"s\d", text)] == ["s6"]  # it alone lies outside the limits
    assert any("mean 1.429, " in text and "limits -0.794 to 3.651" in text for text in said(figure))


def test_a_slide_of_which_nothing_was_evaluated_is_in_no_plot(tmp_path):
    nothing = record_of("all", np.full((3, 5), 200, np.uint8), np.full((3, 5), 255, np.uint8), ignored_mm2=1.5)
    assert plotted(tmp_path, [*records(), nothing]) == plotted(tmp_path, records())


def test_intervals_of_the_mean_difference_are_drawn_where_there_are_enough_patients(tmp_path):
    slides = areas(*((1, 2 + n / 10) for n in range(41)))
    figure = draw_areas(splits_of(tmp_path, slides), slides)
    (band,) = figure.axes[0].patches
    low, high = band.get_y(), band.get_y() + band.get_height()
    assert low + high == pytest.approx(6)  # 1 to 5 mm² in equal steps
    assert any(f"mean 3.000 ({low:.3f}" in text for text in said(figure))


def test_four_slides_have_no_limits_of_agreement(tmp_path):
    slides = areas((1, 2), (1, 3), (2, 2), (1, 2))
    figure = draw_areas(splits_of(tmp_path, slides), slides)
    assert by_gid(figure, "difference-test").get_ydata() == [1, 1]
    assert not figure.findobj(lambda artist: str(artist.get_gid()).endswith("_limit-test"))
    assert any("mean 1.000, limits undefined" in text for text in said(figure))


def test_of_slides_that_all_differ_by_the_same_none_is_outside_the_limits(tmp_path):
    slides = areas((0.1, 0.3), (0.7, 0.9), (1.1, 1.3))
    figure = draw_areas(splits_of(tmp_path, slides), slides)
    assert not [text for text in said(figure) if re.fullmatch(r"s\d", text)]


def test_many_slides_are_drawn_as_pixels(tmp_path, monkeypatch):
    assert "<image" not in plotted(tmp_path, records())["areas"]
    monkeypatch.setattr("lesionmap.evaluation.plots.MOST_VECTORS", 2)
    assert "<image" in plotted(tmp_path, records())["areas"]


def test_lesions_by_size_have_counts_and_intervals(splits):
    figure = draw_lesion_sizes(splits)
    assert points(figure, "dots-test")[:, 1].tolist()[:2] == [pytest.approx(2 / 3), 0]
    assert np.isnan(points(figure, "dots-test")[2, 1])  # no lesion of that size
    named = [" ".join(label.get_text().split()) for label in figure.axes[0].get_xticklabels()]
    assert named == [
        "all test 14/21 val 4/6",
        "below 0.2 mm test 0/7 val 0/2",
        "0.2 to 0.5 mm test 0/0 val 0/0",
        "0.5 to 2 mm test 7/7 val 2/2",
        "2 mm and more test 7/7 val 2/2",
    ]
    entry = splits["test"]["metrics"]["lesion_recall"]
    assert entry["low"] is None  # every slide has the same lesions
    assert np.isnan(bars(figure.axes[0])).all()


def test_bars_reach_from_the_lower_to_the_upper_end_of_the_interval(tmp_path):
    slides = records()
    slides[0]["lesions"][0]["predicted_pixels"] = slides[1]["lesions"][0]["predicted_pixels"] = 0
    splits = splits_of(tmp_path, slides)
    entry = splits["test"]["metrics"]["lesion_recall"]
    assert entry["low"] < entry["value"] < entry["high"]
    assert bars(draw_lesion_sizes(splits).axes[0])[0] == pytest.approx([entry["low"], entry["high"]])


def test_a_split_without_lesion_says_why_it_is_missing(tmp_path):
    splits = splits_of(tmp_path, records(with_lesion=("test",)))
    for draw, name in ((draw_roc, "roc"), (draw_precision_recall, "precision-recall"), (draw_froc, "froc")):
        figure = draw(splits)
        assert by_gid(figure, f"{name}-test")
        assert not figure.findobj(lambda artist, name=name: artist.get_gid() == f"{name}-val")
        assert any(text.startswith("val: 2 slides of 2 patients: no lesion") for text in said(figure))
    assert "Dice and the like: no lesion is annotated" in said(draw_thresholds(splits))
    assert any("val: 2 slides of 2 patients: no lesion" in text for text in said(draw_lesion_sizes(splits)))
    assert by_gid(draw_calibration(splits), "calibration-val")


def test_a_figure_that_is_undefined_for_all_says_so_in_words(tmp_path):
    splits = splits_of(tmp_path, records(with_lesion=()))
    reasons = "test: 8 slides of 8 patients: no lesion is annotated val: 2 slides of 2 patients: no lesion is annotated"
    assert said(draw_roc(splits)) == [f"ROC curve: undefined. {reasons}"]
    assert said(draw_precision_recall(splits))[0].startswith("Precision-recall curve: undefined. ")
    assert "no lesion of that kind is annotated" in said(draw_froc(splits))[0]
    assert "no lesion of that kind is annotated" in said(draw_lesion_sizes(splits))[0]


def test_without_evaluated_slide_every_file_says_so(tmp_path):
    for text in plotted(tmp_path, []).values():
        assert ": undefined. -->" in text
        assert "no slide of the split val or test has both a lesion map and" in text
    assert [said(draw({}))[0].endswith("a usable annotation") for draw in DRAWINGS] == [True] * len(DRAWINGS)


def test_a_slides_name_is_text_and_no_markup(tmp_path):
    slides = areas((1, 2), (2, 3), (3, 4), (4, 5), (1, 2), (2, 3), (5, 9))
    slides[6]["slide"] = HOSTILE
    text = plotted(tmp_path, slides)["areas"]
    assert not [element for element in ElementTree.fromstring(text).iter() if "img" in str(element.tag)]
    assert "<img" not in text.replace("<!-- <img src=x onerror=alert(1)>- -$x_1$ -->", "")


def test_the_files_are_those_that_were_asked_for(tmp_path):
    plotted(tmp_path, records())
    assert {path.name for path in tmp_path.glob("*.svg")} == {f"{name}.svg" for name in NAMES}
    assert len(astuple(MetricPlots(*NAMES))) == len(NAMES)
