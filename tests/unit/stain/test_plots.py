import numpy as np
import pytest
from lesionmap.files.pictures import read_png
from lesionmap.stain.plots import directions, draw_match, draw_stains
from lesionmap.stain.table import StainMatch
from matplotlib.figure import Figure
from stained import DEGENERATE, HE, OTHER_HE, profile, stained_pixels

MATCH = StainMatch(profile(OTHER_HE), profile(HE), (1.0, 1.0))


def views(*greys):
    return [np.full((512, 512, 3), grey, np.uint8) for grey in greys]


def drawn(path, pixels, tissue=None):
    draw_match(str(path), tissue or views(10, 100, 200), pixels, MATCH)
    return read_png(path)[..., :3]


def test_directions_are_red_and_blue_for_each_green():
    np.testing.assert_allclose(directions(np.array([[0.6, 0.3, 0.9], [1.2, 0.6, 1.8]])), [[2, 3]] * 2)
    assert np.isfinite(directions(np.array([[1.0, 0.0, 1.0]]))).all()


def test_directions_of_mixtures_lie_on_the_line_between_the_stains():
    (x0, y0), (x1, y1) = directions(HE)
    x, y = directions(np.random.default_rng(0).random((100, 2)) @ HE).T
    np.testing.assert_allclose((x - x0) * (y1 - y0), (y - y0) * (x1 - x0), atol=1e-12)
    assert ((min(x0, x1) <= x) & (x <= max(x0, x1))).all()


def test_stain_vectors_are_drawn_where_they_point():
    axes = Figure().subplots()
    draw_stains(axes, profile(HE), "slide", marker="o")
    line, first, second = axes.lines
    np.testing.assert_allclose(line.get_xydata(), directions(HE))
    np.testing.assert_allclose([first.get_xydata()[0], second.get_xydata()[0]], directions(HE))
    assert [first.get_label(), second.get_label()] == ["haematoxylin, slide", "eosin, slide"]


@pytest.mark.filterwarnings("error")
def test_tissue_is_shown_before_after_and_beside_the_reference(tmp_path):
    image = drawn(tmp_path / "m.png", stained_pixels(OTHER_HE))
    assert image.shape == (460, 1700, 3)
    middle = image[230, :, 0]
    shown = [np.flatnonzero(middle == grey) for grey in (10, 100, 200)]
    assert all(len(columns) > 200 for columns in shown)
    assert np.all(np.diff([np.median(columns) for columns in shown]) > 300)


def test_a_picture_is_the_same_bytes_again(tmp_path):
    for name in ("one.png", "two.png"):
        drawn(tmp_path / name, stained_pixels(OTHER_HE))
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["no pixel", "black", "green pen"])
def test_pixels_of_any_kind_can_be_drawn(tmp_path, name):
    image = drawn(tmp_path / "m.png", DEGENERATE[name].pixels)
    assert image.shape == (460, 1700, 3)
