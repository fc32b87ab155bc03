import numpy as np
import tifffile
from lesionmap.tissue.detection import TissueSettings, find_tissue
from lesionmap.tissue.mask import TissueMask
from pyramids import info_of, write_tiff

SETTINGS = TissueSettings(mpp=2.0, min_area_um2=400, min_hole_um2=400)  # 100 px of 2 µm
PINK, WHITE = (200, 120, 180), (245, 243, 246)


def test_the_mask_is_looked_up_at_its_place(tmp_path):
    image = np.empty((333, 517, 3), dtype=np.uint8)
    image[:] = WHITE
    image[80:240, 160:400] = PINK
    info = info_of(write_tiff(tmp_path / "s.tif", image))
    find_tissue(info, str(tmp_path / "t.tif"), SETTINGS)
    assert tifffile.imread(tmp_path / "t.tif").shape == (42, 65)  # ceil(333 / 8), ceil(517 / 8)
    mask = TissueMask(tmp_path / "t.tif", info)
    found = mask.at((0, 0), (517, 333), 1.0)
    assert (found[90:230, 170:390]).all()
    assert not found[:70].any()
    assert not found[:, 410:].any()
    np.testing.assert_array_equal(mask.at((150, 70), (100, 50), 1.0), found[70:120, 150:250])
    assert not mask.at((517, 0), (20, 333), 1.0).any()
    assert not mask.at((-30, 0), (30, 333), 1.0).any()
    for x, y in [(0, 0), (100, 0), (140, 60), (300, 200), (390, 230), (500, 320)]:
        assert mask.any_at((x, y), (13, 17), 1.3) == mask.at((x, y), (13, 17), 1.3).any()
