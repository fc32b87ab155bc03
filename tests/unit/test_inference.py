from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from lesionmap.slides import Slide
from lesionmap.stain import StainMatch, apply_table
from lesionmap.tile_pass import PassSettings, map_slide
from lesionmap.tissue import TissueMask
from pyramids import info_of, write_tiff
from stained import OTHER_HE, PROFILE, profile

STAIN = StainMatch(PROFILE, profile(OTHER_HE), (0.8, 1.1))


class Pointwise(torch.nn.Module):
    """A network without context, so that the map must be what each pixel alone gives."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(1))

    def forward(self, images):
        return (128.0 - images[:, :1].float()) / 40


@pytest.fixture
def slide(tmp_path):
    """A slide whose size no tile divides, at 0.26 µm/px, with a smooth asymmetric pattern; all of it tissue."""
    y, x = np.mgrid[:703, :1117]
    red = 128 + 100 * np.sin(x / 90) * np.cos(y / 140 + x / 400)
    image = np.stack([red, red / 2, red / 3 + 90], axis=2).astype(np.uint8)
    info = info_of(write_tiff(tmp_path / "s.tif", image, mpp=0.26, factors=(1, 4)))
    tifffile.imwrite(tmp_path / "tissue.tif", np.full((88, 140), 255, dtype=np.uint8))
    return info, TissueMask(tmp_path / "tissue.tif", info)


def mapped(slide, batch_size=3, threads=2):
    info, tissue = slide
    settings = PassSettings(mpp=2.5, tile_px=32, batch_size=batch_size, max_unreadable_fraction=0.0)
    found = map_slide(info, tissue, STAIN, Pointwise(), settings, Path(info.path).parent, threads=threads)
    assert found.unreadable == []
    return found.levels


def test_the_stitched_map_is_that_of_the_whole_slide(slide):
    info = slide[0]
    found = mapped(slide)
    width, height = (int(np.ceil(length * 0.26 / 2.5)) for length in info.size_lv0)
    assert found.shape == (height, width)
    with Slide(info, "test") as opened:
        whole = apply_table(STAIN.table(), opened.read((0, 0), (width, height), 2.5))
    expected = 255 / (1 + np.exp((whole[..., 0] - 128.0) / 40))
    difference = np.abs(found - expected)
    assert np.percentile(difference, 99) <= 3  # reading in other boxes rounds a grey level differently
    assert difference.max() <= 8


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"batch_size": 128}, {"threads": 1}, {"threads": 5}])
def test_batches_and_threads_do_not_change_a_byte(slide, options):
    np.testing.assert_array_equal(mapped(slide, **options), mapped(slide))


def test_tiles_without_tissue_are_left_out(slide, tmp_path):
    info, _ = slide
    tissue = np.zeros((88, 140), dtype=np.uint8)
    tissue[50:, 80:] = 255
    tifffile.imwrite(tmp_path / "some.tif", tissue)
    found = mapped((info, TissueMask(tmp_path / "some.tif", info)))
    assert not found[:32, :64].any()
    assert found[40:, 70:].any()
