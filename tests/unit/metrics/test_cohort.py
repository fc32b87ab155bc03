"""Metrics of a cohort against metrics of the pixels, lesions and slides themselves."""

import numpy as np
import pytest
from evaluated import lesion, random_slide, record_of, scores_at
from lesionmap.maps.probability import BIN_PROBABILITIES, PER_BIN, as_scores
from lesionmap.metrics.cohort import SWEEP, metrics_of, with_intervals
from lesionmap.metrics.froc import FALSE_PER_SLIDE
from lesionmap.metrics.pixels import Histograms, binary_metrics
from lesionmap.metrics.slide_table import SlideTable, bland_altman
from scipy.special import expit, logit
from scipy.stats import t
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

HAS_LESION = (True, True, False, True, False, True)
SLIDES = [random_slide(seed, has_lesion=has) for seed, has in enumerate(HAS_LESION)]
RECORDS = [record_of(f"s{n}", *slide) for n, slide in enumerate(SLIDES)]


def keyed(metric):
    """Its name; with the threshold, if it is of the sweep."""
    return metric.name if metric.threshold is None else (metric.name, metric.threshold)


def entries_of(records):
    return {keyed(metric): entry for metric, entry in with_intervals(SlideTable.of(records, 200)).items()}


def one_weighting(records, weights=None, min_lesion_um=200):
    table = SlideTable.of(records, min_lesion_um)
    metrics = metrics_of(table, np.ones((1, len(records))) if weights is None else np.array([weights], dtype=float))
    return {keyed(metric): value.item() for metric, value in metrics.items()}


def test_pixel_metrics_are_of_all_pixels_together():
    metrics = one_weighting(RECORDS)
    scores, mask = (np.concatenate(parts) for parts in zip(*SLIDES, strict=True))
    expected = binary_metrics(Histograms.of(scores, mask), 0.5)
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=1e-9)


def test_slide_means_leave_out_slides_for_which_a_figure_is_undefined():
    metrics = one_weighting(RECORDS)
    for name in ("dice", "precision", "auroc", "specificity", "ece"):
        values = [record["metrics"][name] for record in RECORDS]
        defined = [value for value in values if value is not None]
        assert len(defined) == (6 if name in ("specificity", "ece") else 4)
        assert metrics[f"slide_mean_{name}"] == pytest.approx(np.mean(defined), abs=1e-9)


def test_a_weight_is_so_many_copies_of_a_slide():
    weighted = one_weighting(RECORDS, [2, 0, 1, 3, 1, 0])
    copies = one_weighting([RECORDS[n] for n in (0, 0, 2, 3, 3, 3, 4)])
    assert weighted == pytest.approx(copies, abs=1e-9, nan_ok=True)


def test_the_sweep_is_the_metrics_at_each_threshold():
    metrics = one_weighting(RECORDS)
    counts = Histograms(np.sum([Histograms.of_record(record["histograms"]).counts for record in RECORDS], axis=0))
    for threshold in SWEEP:
        expected = binary_metrics(counts, threshold)
        for name in ("dice", "iou", "precision", "recall", "specificity"):
            assert metrics[name, threshold] == pytest.approx(expected[name], abs=1e-9)


def test_slides_with_lesion_are_told_from_those_without_by_probability_and_area():
    metrics = one_weighting(RECORDS)
    highest = [scores[mask != 255].max() for scores, mask in SLIDES]
    areas = [record["predicted_mm2"] for record in RECORDS]
    assert metrics["slide_auroc_probability"] == pytest.approx(roc_auc_score(HAS_LESION, highest), abs=1e-9)
    assert metrics["slide_auroc_area"] == pytest.approx(roc_auc_score(HAS_LESION, areas), abs=1e-9)


def test_ties_between_slides_count_one_half():
    areas = (0.0, 0.0, 0.5, 0.5, 1.0, 0.0)
    records = [record | {"predicted_mm2": area} for record, area in zip(RECORDS, areas, strict=True)]
    assert one_weighting(records)["slide_auroc_area"] == pytest.approx(roc_auc_score(HAS_LESION, areas), abs=1e-9)


def test_lesions_by_size():
    sizes = [(150, 0), (200, 3), (499, 0), (500, 1), (1999, 1), (2000, 1), (9000, 0)]
    lesions = [lesion(extent, predicted_pixels=marked) for extent, marked in sizes]
    metrics = one_weighting([RECORDS[0] | {"lesions": [*lesions, lesion(700, pixels=0, predicted_pixels=0)]}])
    names = [name for name in metrics if str(name).startswith("lesion_recall")]
    found = {name.removeprefix("lesion_recall"): metrics[name] for name in names}
    assert found == {"": 4 / 7, "_below_0.2mm": 0, "_0.2_to_0.5mm": 0.5, "_0.5_to_2mm": 1, "_from_2mm": 0.5}


def test_small_lesions_and_what_could_not_be_read_do_not_count_for_the_froc_curve():
    lesions = [lesion(150, detected_at=250), lesion(600, detected_at=200), lesion(600), lesion(600, pixels=0)]
    records = [RECORDS[0] | {"lesions": lesions, "false_positive_scores": scores_at(230, 150)}, RECORDS[2]]
    metrics = one_weighting(records)
    assert metrics["sensitivity_at_0.25"] == 0.0
    assert metrics["sensitivity_at_0.5"] == 0.5
    assert metrics["false_lesions_per_slide"] == 1.0
    assert one_weighting(records, min_lesion_um=0)["sensitivity_at_0.25"] == pytest.approx(1 / 3)


def froc_of(found, false, n_lesions):
    """Sensitivities threshold by threshold over lists of scores, as the challenge counts; of slides, scores of each."""
    thresholds = sorted({score for scores in (*found, *false) for score in scores}, reverse=True)
    points = [(0.0, 0.0)]
    for least in thresholds:
        counts = (sum(score >= least for scores in kind for score in scores) for kind in (false, found))
        points.append(tuple(count / n for count, n in zip(counts, (len(false), n_lesions), strict=True)))
    return [np.interp(rate, *zip(*points, strict=True)) for rate in FALSE_PER_SLIDE]


@pytest.mark.parametrize("sureness", [1, 6])
def test_lesions_and_slides_of_saturated_maps_rank_as_their_float_maps(sureness):
    """Lesions at logits that steps of 1/255 do not part: FROC and slide AUROC are those of the floats."""
    rng = np.random.default_rng(4)
    logits = [sureness * rng.normal(1.5 if n % 2 else 0.9, 0.8, 9) for n in range(40)]
    found, false = [part[: 5 * (n % 2)] for n, part in enumerate(logits)], [part[5:] for part in logits]
    logits, records = [np.concatenate(pair) for pair in zip(found, false, strict=True)], []
    for n, parts in enumerate(zip(found, false, strict=True)):
        theirs, others = (as_scores(part).tolist() for part in parts)
        lesions = [lesion() | {"detection_score": score} for score in theirs] + [lesion()] * (n % 3)
        changes = {"lesions": lesions, "false_positive_scores": others, "highest_score": max(theirs + others)}
        records.append(record_of(f"s{n}", *random_slide(n, has_lesion=n % 2 > 0), **changes))
    metrics = one_weighting(records)
    ours = [metrics[f"sensitivity_at_{rate:g}"] for rate in FALSE_PER_SLIDE]
    n_lesions = sum(len(record["lesions"]) for record in records)
    assert ours == pytest.approx(froc_of(found, false, n_lesions), abs=1e-3)
    has_lesion, highest = [n % 2 > 0 for n in range(40)], [part.max() for part in logits]
    assert metrics["slide_auroc_probability"] == pytest.approx(roc_auc_score(has_lesion, highest), abs=1e-3)
    if sureness == 6:
        in_255 = roc_auc_score(has_lesion, np.rint(255 * expit(np.array(highest))))
        assert in_255 < metrics["slide_auroc_probability"] - 0.1


def test_areas_by_bland_and_altman():
    annotated, marked = np.array([1.0, 2.0, 0.0, 4.0, 3.0]), np.array([1.5, 1.8, 0.1, 5.0, 3.0])
    metrics = bland_altman(np.stack([annotated, marked], axis=1), np.ones((1, 5)))
    difference, spread = (marked - annotated).mean(), 1.96 * np.std(marked - annotated, ddof=1)
    assert metrics["area_difference_mm2"] == pytest.approx([difference])
    assert metrics["area_lower_limit_mm2"] == pytest.approx([difference - spread])
    assert metrics["area_upper_limit_mm2"] == pytest.approx([difference + spread])
    four = bland_altman(np.stack([annotated, marked], axis=1), np.array([[1.0, 1, 1, 1, 0]]))
    assert np.isnan([four["area_lower_limit_mm2"], four["area_upper_limit_mm2"]]).all()
    assert not np.isnan(four["area_difference_mm2"])


def test_each_figure_says_its_interval_and_what_it_rests_on():
    records = [record_of(f"s{n}", *random_slide(n, has_lesion=n % 3 > 0)) for n in range(24)]
    records = [record | {"patient": f"p{n // 2}"} for n, record in enumerate(records)]
    entries = entries_of(records)
    for name, slides, patients in [("dice", 16, 12), ("specificity", 24, 12), ("slide_mean_ece", 24, 12)]:
        entry = entries[name]
        assert (entry["slides"], entry["patients"], entry["note"]) == (slides, patients, "")
        assert entry["low"] < entry["value"] < entry["high"]
    for name, least in [("brier", 20), ("area_difference_mm2", 40), ("area_upper_limit_mm2", 80)]:
        assert entries[name]["note"] == f"no interval: fewer than {least} patients"
    rarer = entries["slide_auroc_area"]  # every slide with lesion has a larger area than every one without
    assert (rarer["slides"], rarer["patients"], rarer["value"], rarer["low"]) == (8, 8, 1, None)
    assert rarer["note"] == "no interval: all 8 patients agree, and up to 31% of others may not"


def test_the_interval_of_a_slides_auroc_is_delongs_on_the_logit():
    """Jackknife and DeLong (Biometrics 1988) share their components, but for m against m − 1; no skew: symmetrical."""
    areas = {True: (0.3, 0.5, 0.9, 0.9, 1.4, 2.0), False: (0.0, 0.1, 0.6, 0.2, 0.95, 0.4)}
    slides = [(has, area) for has in areas for area in areas[has]]
    records = [
        record_of(f"s{n}", *random_slide(n, has_lesion=has)) | {"predicted_mm2": area}
        for n, (has, area) in enumerate(slides)
    ]
    entry = entries_of(records)["slide_auroc_area"]
    wins = np.sign(np.subtract.outer(areas[True], areas[False])) / 2 + 0.5
    parts = [(wins.mean(axis=axis) - wins.mean()) / 5 for axis in (1, 0)]  # the change without each slide
    influence = np.concatenate(parts)
    variance, third, fourth = (np.mean(influence**power) for power in (2, 3, 4))
    freedom = min(11, 24 / (fourth / variance**2 - 1))
    reach = t.ppf(0.975, freedom) * np.sqrt(11 * variance) / (wins.mean() * (1 - wins.mean()))
    longer = np.exp(abs(third) / variance**1.5 / np.sqrt(12))
    assert third < 0
    assert (entry["low"], entry["high"]) == pytest.approx(
        (expit(logit(wins.mean()) - reach * longer), expit(logit(wins.mean()) + reach))
    )


def test_a_slide_without_patient_is_one_of_its_own_even_if_a_patient_has_its_name():
    records = [
        record | {"patient": patient} for record, patient in zip(RECORDS, ("s1", None, "s1", None), strict=False)
    ]
    assert SlideTable.of(records, 200).patient.tolist() == [0, 1, 0, 2]


def test_of_few_patients_there_are_metrics_but_no_intervals():
    entry = entries_of(RECORDS)["dice"]
    assert entry["value"] == one_weighting(RECORDS)["dice"]
    assert (entry["low"], entry["high"], entry["note"]) == (None, None, "no interval: fewer than 5 patients")


@pytest.mark.parametrize("has_lesion", [True, False])
def test_what_is_undefined_is_none_with_a_reason_and_never_nan(has_lesion):
    scores, mask = random_slide(0, has_lesion=has_lesion)
    mask[mask == 3] = 0
    entries = entries_of([record_of("s", scores, mask)])
    reasons = {name: entry["note"] for name, entry in entries.items() if entry["value"] is None}
    assert reasons.pop("false_positive_rate_fat") == "no pixel of fat"
    assert reasons.pop("slide_auroc_area") == "needs slides with and slides without lesion"
    assert reasons.pop("area_upper_limit_mm2") == "needs 5 slides"
    assert reasons.pop("froc_score") == "no lesion of that kind is annotated"
    assert reasons.get("dice") == reasons.get("slide_mean_dice") == (None if has_lesion else "no lesion is annotated")
    for entry in entries.values():
        assert all(entry[key] is None or np.isfinite(entry[key]) for key in ("value", "low", "high"))
        assert entry["low"] is None
        assert entry["note"]


def test_calibration_of_a_split_is_fitted_to_all_its_pixels():
    """Against scikit-learn on the pixels, with the weights of slides as their number."""
    metrics = one_weighting(RECORDS, [1, 2, 1, 0, 1, 1])
    chosen = [SLIDES[n] for n in (0, 1, 1, 2, 4, 5)]
    scores, mask = (np.concatenate([part.ravel() for part in parts]) for parts in zip(*chosen, strict=True))
    scores, mask = scores[mask != 255], mask[mask != 255]
    logits = logit(BIN_PROBABILITIES[scores // PER_BIN])
    theirs = LogisticRegression(C=np.inf, tol=1e-10).fit(logits[:, None], mask == 1)
    assert metrics["calibration_slope"] == pytest.approx(theirs.coef_.item(), abs=1e-5)
    moved = expit(metrics["calibration_intercept"] + logits)
    assert moved.mean() == pytest.approx((mask == 1).mean(), abs=1e-9)


def test_calibration_has_intervals_and_reasons():
    records = [record_of(f"s{n}", *random_slide(n, has_lesion=n % 4 > 0)) for n in range(60)]
    entries = entries_of(records)
    for name in ("calibration_slope", "calibration_intercept"):
        entry = entries[name]
        assert entry["low"] < entry["value"] < entry["high"]
        assert (entry["slides"], entry["patients"]) == (45, 45)
    one = record_of("s", as_scores(np.array([[-3.0, 2.0]])), np.array([[0, 1]], np.uint8))
    assert entries_of([one])["calibration_slope"]["note"] == "a threshold parts lesion from all else"
    assert entries_of([one])["calibration_intercept"]["value"] == pytest.approx(0.5, abs=0.02)
    nothing = entries_of([record_of("s", *random_slide(0, has_lesion=False))])
    assert nothing["calibration_slope"]["note"] == "needs mapped pixels of lesion and others"
    assert nothing["calibration_intercept"]["note"] == "needs mapped pixels of lesion and others"
