import numpy as np
from lesionmap.viewer.overlay import write_overlay
from PIL import Image


def test_the_overlay_is_in_the_viewers_colours_with_outlines_in_black(tmp_path):
    overview = np.full((40, 60, 3), 200, dtype=np.uint8)
    probability_u8 = np.zeros((40, 60), dtype=np.uint8)
    probability_u8[10:30, 20:50] = 255
    write_overlay(tmp_path / "o.png", overview, probability_u8, probability_u8 > 0)
    picture = np.asarray(Image.open(tmp_path / "o.png"))
    assert picture.shape == (40, 60, 3)
    assert picture[0, 0].tolist() == [200, 200, 200]
    assert picture[10, 20].tolist() == picture[11, 30].tolist() == [0, 0, 0]
    assert picture[20, 35].tolist() == [232, 219, 102]  # 0.6 of viridis' (253, 231, 37)
