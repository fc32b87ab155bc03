"""Maps brought to what was observed on validation slides."""

import numpy as np
import pytest
from lesionmap.errors import ModelError
from lesionmap.inference.recalibration import Recalibration
from lesionmap.maps.probability import N_BINS, PER_BIN, as_scores
from lesionmap.metrics.calibration import logistic_recalibration
from lesionmap.metrics.pixels import auroc
from scipy.special import expit, logit

EPOCH = {"val_low_calibration_intercept": -0.5, "val_low_calibration_slope": 1.5}


def histograms(scores, truth):
    return [np.bincount(scores[kind] // PER_BIN, minlength=N_BINS) for kind in (truth, ~truth)]


@pytest.mark.parametrize("sureness", [0.4, 3.0])
def test_on_the_slides_of_the_fit_the_slope_becomes_1_and_ranks_stay(sureness):
    rng = np.random.default_rng(0)
    truth = rng.random((201, 301)) < 0.1
    scores = as_scores(sureness * (rng.normal(-1, 1, truth.shape) + 1.5 * truth))
    before = histograms(scores, truth)
    intercept, slope = map(float, logistic_recalibration(*before))
    assert abs(slope - 1) > 0.2
    Recalibration(intercept, slope).apply(scores)
    after = histograms(scores, truth)
    assert logistic_recalibration(*after) == pytest.approx((0, 1), abs=0.01)
    assert auroc(*after) == pytest.approx(auroc(*before), abs=1e-3)


def test_each_logit_is_moved_and_what_has_no_score_keeps_none():
    scores = as_scores(np.array([[-2.0, 0.0, 1.0], [30.0, -30.0, 4.0]]))
    scores[1, 2] = 0
    Recalibration(-0.5, 1.5).apply(scores)
    expected = as_scores(np.array([[-3.5, -0.5, 1.0], [32.0, -32.0, 4.0]]))
    expected[1, 2] = 0
    np.testing.assert_array_equal(scores, expected)
    assert scores[1, :2].tolist() == [65535, 1]  # the ends of the range


def test_a_threshold_moves_along():
    moved = Recalibration(-0.5, 1.5).of_threshold(0.3)
    assert moved == pytest.approx(expit(-0.5 + 1.5 * logit(0.3)))
    assert Recalibration(0, 1).of_threshold(0.7) == pytest.approx(0.7)


def test_the_values_are_those_of_the_view():
    fused = {"val_fused_calibration_intercept": 2.0, "val_fused_calibration_slope": 0.25}
    model = {"epoch": EPOCH | fused}
    assert Recalibration.of("m", model, "low") == Recalibration(-0.5, 1.5)
    assert Recalibration.of("m", model, "fused") == Recalibration(2.0, 0.25)


@pytest.mark.parametrize(
    ("epoch", "said"),
    [
        ({"val_low_threshold": 0.4}, "has no calibration for maps of the low view: it is of an older version, or was"),
        (EPOCH | {"val_low_calibration_slope": None}, "has no calibration for maps of the low view"),
        (EPOCH | {"val_low_calibration_slope": -0.25}, r"lesion ranks below the rest \(slope -0\.25\)"),
        (EPOCH | {"val_low_calibration_slope": 0}, r"lesion ranks below the rest \(slope 0\)"),
    ],
)
def test_a_model_that_cannot_be_recalibrated_is_refused(epoch, said):
    remedy = r".*Remedy: set inference\.recalibrate: false, or train a model with annotated slides of the split val"
    with pytest.raises(ModelError, match=f"^map_slide: inference.recalibrate is true, but .*{said}{remedy}"):
        Recalibration.of("m.safetensors", {"epoch": epoch}, "low")
