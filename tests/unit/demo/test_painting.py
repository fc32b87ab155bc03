from lesionmap.demo.painting import DemoSlide, paint
from rasterio.features import rasterize


def test_lesions_are_darker_than_fat_where_the_outlines_say_so() -> None:
    rgb, classes = paint(DemoSlide("any", 1024, 768, 3, "train"))
    lesion, fat = (rasterize(classes[name], out_shape=rgb.shape[:2]) > 0 for name in ("Lesion", "Fat"))
    assert rgb[lesion].mean() < rgb[fat].mean() - 30
