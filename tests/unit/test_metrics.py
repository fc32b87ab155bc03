import json

import numpy as np
import pytest
from lesionmap.evaluation import summarise
from lesionmap.metrics import Histograms, as_levels, best_threshold, binary_metrics, first_positive_level
from sklearn.metrics import average_precision_score, f1_score, jaccard_score, roc_auc_score


@pytest.fixture
def random_map():
    rng = np.random.default_rng(0)
    mask = rng.choice([0, 1, 2, 3, 255], (60, 70), p=[0.5, 0.2, 0.1, 0.1, 0.1]).astype(np.uint8)
    levels = np.clip(rng.normal(100, 50, mask.shape) + 60 * (mask == 1), 0, 255).astype(np.uint8)
    return levels, mask


def test_against_scikit_learn_on_the_pixels(random_map):
    levels, mask = random_map
    known = mask != 255
    truth, score = (mask == 1)[known], levels[known]
    positive = score >= first_positive_level(0.5)
    ours = binary_metrics(Histograms.of(levels, mask), 0.5)
    expected = {
        "dice": f1_score(truth, positive),
        "iou": jaccard_score(truth, positive),
        "auroc": roc_auc_score(truth, score),
        "auprc": average_precision_score(truth, score),
        "precision": truth[positive].mean(),
        "recall": positive[truth].mean(),
        "specificity": 1 - positive[~truth].mean(),
        "false_positive_rate_rest": positive[mask[known] == 0].mean(),
        "false_positive_rate_vessel": positive[mask[known] == 2].mean(),
        "false_positive_rate_fat": positive[mask[known] == 3].mean(),
    }
    assert ours == pytest.approx(expected, abs=1e-9)


def test_a_slide_without_lesion_has_no_ranking_but_a_specificity():
    ours = binary_metrics(Histograms.of(np.array([[10, 200]], np.uint8), np.array([[0, 0]], np.uint8)), 0.5)
    assert (ours["auroc"], ours["recall"], ours["dice"], ours["specificity"]) == (None, None, 0.0, 0.5)
    assert ours["false_positive_rate_fat"] is None
    nothing = binary_metrics(Histograms.empty(), 0.5)
    assert set(nothing.values()) == {None}


def test_half_is_lesion_and_just_below_is_not():
    levels = as_levels(np.array([0.49, 0.4981, 0.5, 1.0]))
    assert (levels >= first_positive_level(0.5)).tolist() == [False, False, True, True]


def test_the_best_threshold_is_that_of_the_best_dice(random_map):
    histograms = Histograms.of(*random_map)
    found = best_threshold(histograms)
    dice = [binary_metrics(histograms, level / 255)["dice"] for level in range(1, 256)]
    assert binary_metrics(histograms, found)["dice"] == pytest.approx(max(dice))
    assert best_threshold(Histograms.empty()) is None


@pytest.mark.parametrize(("negative", "positive", "expected"), [(10, 200, 127), (150, 200, 151), (10, 90, 90)])
def test_of_equal_thresholds_that_nearest_to_one_half_is_taken(negative, positive, expected):
    levels, mask = np.array([[negative, positive]], np.uint8), np.array([[0, 1]], np.uint8)
    assert first_positive_level(best_threshold(Histograms.of(levels, mask))) in (expected, expected + 1)


def test_cohort_figures_are_of_all_pixels_together(tmp_path, random_map):
    levels, mask = random_map
    paths = []
    for index, part in enumerate((slice(0, 20), slice(20, 60))):
        histograms = Histograms.of(levels[part], mask[part])
        path = tmp_path / f"{index}.json"
        record = {"slide": f"s{index}", "split": "test", "threshold": 0.5, "metrics": binary_metrics(histograms, 0.5)}
        path.write_text(json.dumps(record | {"histograms": histograms.counts.tolist()}))
        paths.append(str(path))
    outputs = [str(tmp_path / name) for name in ("slides.tsv", "cohort.json", "headline.txt")]
    summarise(paths, *outputs)
    cohort = json.loads((tmp_path / "cohort.json").read_text())
    assert cohort["test"] == {"slides": 2, **binary_metrics(Histograms.of(levels, mask), 0.5)}
    headline = (tmp_path / "headline.txt").read_text().splitlines()
    assert headline[0].startswith(f"lesion, split test (2 slides): Dice {cohort['test']['dice']:.3f}, AUROC ")
    assert len((tmp_path / "slides.tsv").read_text().splitlines()) == 3


def test_no_evaluated_slide_is_said(tmp_path):
    outputs = [str(tmp_path / name) for name in ("slides.tsv", "cohort.json", "headline.txt")]
    summarise([], *outputs)
    assert (tmp_path / "headline.txt").read_text() == "no slide was evaluated\n"
    assert (tmp_path / "cohort.json").read_text() == "{}\n"
