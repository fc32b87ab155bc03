import pytest
from lesionmap.demo.painting import DemoSlide, paint
from rasterio.features import rasterize


@pytest.mark.parametrize(("size_px", "seed"), [((805, 603), 0), ((1024, 768), 1), ((600, 801), 2)])
def test_lesions_take_their_share_of_the_tissue(size_px: tuple[int, int], seed: int) -> None:
    rgb, classes = paint(DemoSlide("any", *size_px, seed, "train"))
    lesion = rasterize(classes["Lesion"], out_shape=rgb.shape[:2]) > 0
    assert all(shape.is_valid for shapes in classes.values() for shape in shapes)
    assert any(shape.interiors for shape in classes["Lesion"])
    assert 0.12 < lesion.sum() / (rgb.min(axis=2) < 225).sum() < 0.4
