import numpy as np
import pytest
from lesionmap.geometry.resampling import block_mean
from lesionmap.slides.slide import Slide
from pyramids import info_of, write_tiff


def test_level_0_is_read_to_the_pixel_at_odd_offsets(noise_info, noise):
    with Slide(noise_info, "test") as slide:
        np.testing.assert_array_equal(slide.read((101, 57), (200, 99), 0.25), noise[57:156, 101:301])


def test_beyond_the_edges_is_white(noise_info, noise):
    with Slide(noise_info, "test") as slide:
        box = slide.read((500, -10), (40, 30), 0.25)
        far = slide.read((1000, 1000), (8, 8), 0.25)
    np.testing.assert_array_equal(box[10:, :17], noise[:20, 500:])
    assert (box[:10] == 255).all()
    assert (box[:, 17:] == 255).all()
    assert (far == 255).all()


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_coarser_reads_are_area_means(tmp_path, noise, factor):
    even = noise[:320, :512]
    info = info_of(write_tiff(tmp_path / "even.tif", even, factors=(1, 2, 4)))
    with Slide(info, "test") as slide:
        box = slide.read((16, 32), (20, 10), 0.25 * factor)
    expected = block_mean(even[32 : 32 + 10 * factor, 16 : 16 + 20 * factor], factor)
    assert np.abs(box.astype(int) - expected).max() <= 1  # the pyramid's own levels are rounded


def test_a_non_whole_factor_is_an_area_mean_too(tmp_path):
    ramp = np.broadcast_to(np.arange(240, dtype=np.uint8)[None, :, None], (120, 240, 3))
    info = info_of(write_tiff(tmp_path / "ramp.tif", ramp))
    with Slide(info, "test") as slide:
        box = slide.read((0.5, 0), (40, 10), 0.25 * 2.5)
    centres = 0.5 + (np.arange(40) + 0.5) * 2.5 - 0.5
    assert np.abs(box[5, :, 0] - centres).max() <= 0.51


@pytest.mark.parametrize("mpp", [0.5, 0.7, 1.0, 1.3])
@pytest.mark.parametrize("spot", [(40.0, 30.0), (470.0, 300.0)])
def test_levels_of_odd_size_are_right_to_half_a_pixel(tmp_path, mpp, spot):
    y, x = np.mgrid[:335, :519] + 0.5
    blob = 255 - 255 * np.exp(-((x - spot[0]) ** 2 + (y - spot[1]) ** 2) / (2 * 12.0**2))
    image = np.rint(blob)[..., None].repeat(3, axis=2).astype(np.uint8)
    info = info_of(write_tiff(tmp_path / "odd.tif", image, factors=(1, 2, 4)))
    scale = mpp / info.mpp
    corner = (spot[0] - 35.3, spot[1] - 28.7)
    with Slide(info, "test") as slide:
        box = 255.0 - slide.read(corner, (int(70 / scale), int(57 / scale)), mpp)[..., 0]
    rows, columns = np.indices(box.shape)
    found = [
        corner[0] + ((columns + 0.5) * box).sum() / box.sum() * scale,
        corner[1] + ((rows + 0.5) * box).sum() / box.sum() * scale,
    ]
    np.testing.assert_allclose(found, spot, atol=0.5)


def test_levels_of_odd_size_leave_no_white_seam(tmp_path):
    image = np.full((335, 519, 3), 100, dtype=np.uint8)
    info = info_of(write_tiff(tmp_path / "odd.tif", image, factors=(1, 2, 4)))
    with Slide(info, "test") as slide:
        for x in range(0, 400, 7):
            box = slide.read((x, x / 2), (30, 20), 0.55)
            assert np.abs(box.astype(int) - 100).max() <= 1


def test_a_tall_read_in_strips_equals_one_read(tmp_path, noise, monkeypatch):
    info = info_of(write_tiff(tmp_path / "even.tif", noise[:320, :512], factors=(1, 2, 4)))
    with Slide(info, "test") as slide:
        whole = slide.read((3, 5), (120, 70), 0.7)
        monkeypatch.setattr("lesionmap.slides.slide.MOST_PIXELS_AT_ONCE", 5000)
        np.testing.assert_array_equal(slide.read((3, 5), (120, 70), 0.7), whole)


def test_odd_levels_keep_their_whole_factor(noise_info):
    assert noise_info.downsamples == (1.0, 2.0, 4.0)
    assert noise_info.level_sizes == ((517, 333), (258, 166), (129, 83))
