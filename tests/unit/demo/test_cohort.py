"""The demo cohort: what is written is what was drawn, byte for byte, every time."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import openslide
import pytest
from lesionmap.demo.cohort import demo_slides, write_asap, write_cohort, write_pyramid, write_qupath
from lesionmap.demo.painting import DemoSlide, paint
from shapely import Polygon

SLIDE = DemoSlide("tiny", 805, 603, 7, "train", "qupath")
SLIDES = (
    SLIDE,
    DemoSlide("other", 640, 805, 8, "test", "asap"),
    DemoSlide("plain", 640, 603, 9, "inference"),
    DemoSlide("broken", 640, 603, 9, "inference", truncated=True),
)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    write_cohort(folder, SLIDES)
    return folder


def read_asap(path: Path) -> dict[str, list[Polygon]]:
    found: dict[str, list[Polygon]] = {}
    for annotation in ET.parse(path).getroot().iter("Annotation"):
        corners = [(float(c.attrib["X"]), float(c.attrib["Y"])) for c in annotation.iter("Coordinate")]
        found.setdefault(annotation.attrib["PartOfGroup"], []).append(Polygon(corners))
    return found


def test_sheet_names_every_slide_and_its_annotation(cohort: Path) -> None:
    assert (cohort / "slides.tsv").read_text() == (
        "slide\tpath\tsplit\tannotation\tmpp\n"
        "tiny\tslides/tiny.tif\ttrain\tannotations/tiny.geojson\t\n"
        "other\tslides/other.tif\ttest\tannotations/other.xml\t\n"
        "plain\tslides/plain.tif\tinference\t\t\n"
        "broken\tslides/broken.tif\tinference\t\t\n"
    )


def test_nothing_else_is_left_behind(cohort: Path) -> None:
    files = {str(path.relative_to(cohort)) for path in cohort.rglob("*") if path.is_file()}
    slides = {f"slides/{slide.name}.tif" for slide in SLIDES}
    assert files == slides | {"slides.tsv", "annotations/tiny.geojson", "annotations/other.xml"}


def test_same_seed_same_bytes_other_seed_other_slide(cohort: Path, tmp_path: Path) -> None:
    write_cohort(tmp_path, SLIDES[:2])
    for name in ("slides/tiny.tif", "slides/other.tif", "annotations/tiny.geojson", "annotations/other.xml"):
        assert (tmp_path / name).read_bytes() == (cohort / name).read_bytes()
    reseeded, _ = paint(DemoSlide("tiny", 805, 603, 70, "train"))
    assert (reseeded != paint(SLIDE)[0]).mean() > 0.5


def test_openslide_sees_levels_and_resolution(cohort: Path) -> None:
    with openslide.OpenSlide(cohort / "slides/tiny.tif") as slide:
        assert slide.level_dimensions == ((805, 603), (202, 151), (51, 38))
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.25)
        assert float(slide.properties["openslide.mpp-y"]) == pytest.approx(0.25)


def test_truncated_slide_is_refused(cohort: Path) -> None:
    with pytest.raises(openslide.OpenSlideError):
        openslide.OpenSlide(cohort / "slides/broken.tif")


def test_lossless_pyramid_returns_the_pixels_of_every_level(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (300, 523, 3), dtype=np.uint8)
    write_pyramid(tmp_path / "a.tif", rgb, 0.5, jpeg_quality=None, downsamples=(1, 2))
    with openslide.OpenSlide(tmp_path / "a.tif") as slide:
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.5)
        blocks = rgb[:, :522].reshape(150, 2, 261, 2, 3).mean(axis=(1, 3))
        smaller = np.concatenate([blocks, rgb[:, 522:].reshape(150, 2, 1, 3).mean(axis=1)], axis=1)  # the last is cut
        for level, pixels in enumerate((rgb, np.rint(smaller))):
            read = np.asarray(slide.read_region((0, 0), level, slide.level_dimensions[level]))
            assert np.array_equal(read[..., :3], pixels)


def test_jpeg_stays_near_the_painted_pixels(cohort: Path) -> None:
    with openslide.OpenSlide(cohort / "slides/tiny.tif") as slide:
        read = np.asarray(slide.read_region((0, 0), 0, slide.dimensions))[..., :3].astype(int)
    assert np.abs(read - paint(SLIDE)[0]).mean() < 4


def test_qupath_file_holds_the_polygons(tmp_path: Path) -> None:
    _, classes = paint(SLIDE)
    write_qupath(tmp_path / "a.geojson", classes)
    found: dict[str, list[Polygon]] = {name: [] for name in classes}
    for feature in json.loads((tmp_path / "a.geojson").read_text())["features"]:
        shell, *holes = feature["geometry"]["coordinates"]
        found[feature["properties"]["classification"]["name"]].append(Polygon(shell, holes))
    assert found == classes


def test_asap_file_holds_the_polygons_and_their_holes_as_exclusions(tmp_path: Path) -> None:
    _, classes = paint(SLIDE)
    write_asap(tmp_path / "a.xml", classes)
    found = read_asap(tmp_path / "a.xml")
    shells = {name: [Polygon(shape.exterior) for shape in shapes] for name, shapes in classes.items()}
    holes = [Polygon(hole) for shapes in classes.values() for shape in shapes for hole in shape.interiors]
    assert found.pop("Exclusion") == holes
    assert found == {name: shapes for name, shapes in shells.items() if shapes}


def test_demo_cohort_has_every_role_and_format() -> None:
    slides = demo_slides()
    roles = [slide.split for slide in slides]
    assert [roles.count(role) for role in ("train", "val", "test", "inference")] == [3, 1, 2, 2]
    assert {slide.annotation_format for slide in slides if slide.split != "inference"} == {"qupath", "asap"}
    assert len({slide.seed for slide in slides}) == len(slides)
    assert sum(slide.truncated for slide in slides) == 1
