"""Slides and annotations in many formats, from doctor to the lesions' GeoJSON; every pixel and coordinate by hand.

The slide has 1000×760 px of 0.25 µm. Tissue lies at x 100–900, y 150–700, and in it a dark lesion at x 412–812,
y 304–624. Some formats hold the image at an offset in a larger level 0; then all of this moves.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml
from annotation_writers import VECTOR_WRITERS
from engine_parts import Pixelwise
from lesionmap.annotations.canonical import import_annotation
from lesionmap.files.records import read_json
from lesionmap.geometry.tiling import TileSpec
from lesionmap.inference.sliding_window import PassSettings, sliding_window_maps
from lesionmap.lesions.find_lesions import LesionFiles, LesionSettings, find_lesions
from lesionmap.maps.ome_tiff import MapNotes, write_map
from lesionmap.run.doctor import diagnose
from lesionmap.run.settings import RunSettings
from lesionmap.slides.inspection import inspect_slide
from lesionmap.slides.sheet import SlideRow
from lesionmap.slides.slide import SlideInfo, load_info
from lesionmap.stain.table import StainMatch
from lesionmap.tiles.codec import TileCodec
from lesionmap.tiles.extraction import Extraction, extract_tiles
from lesionmap.tiles.store import TileStore
from lesionmap.tissue.detection import find_tissue
from lesionmap.tissue.mask import TissueMask
from odd_tiffs import four_channels, scaled, stated, write_odd_tiff, write_ome_tiff
from pyramids import inspection_files, write_jpeg, write_tiff
from shapely.geometry import box, shape
from stained import PROFILE
from vendor_slides import write_aperio, write_dicom, write_mirax, write_ndpi, write_scn

WIDTH, HEIGHT = 1000, 760
TISSUE, LESION = (100, 150, 900, 700), (412, 304, 812, 624)  # left, top, right, bottom
LESION_PX = 400 * 320
GLASS, PINK, DARK = (241, 239, 243), (205, 130, 180), (110, 60, 140)
SPEC = TileSpec(region_px=512, tile_px=128, mpp=0.25)
STAIN = StainMatch(PROFILE, PROFILE, (1.0, 1.0))
MAP_SCALE = 4  # level-0 pixels per pixel of the map
Writer = Callable[..., Path]


@dataclass(frozen=True)
class Format:
    """A slide format: its file, how it is written, and where the image lies on level 0."""

    file: str
    write: Writer
    corner: tuple[int, int] = (0, 0)


FORMATS = {
    "jpeg": Format("s.tif", lambda path, image, mpp: write_jpeg(path, image, factors=(1, 2, 4))),
    "aperio": Format("s.svs", lambda path, image, mpp: write_aperio(path, image, mpp, "jpeg")),
    "ndpi": Format("s.ndpi", write_ndpi),
    "leica": Format(
        "s.scn",
        lambda path, image, mpp: write_scn(path, image, mpp, corner_px=(204, 308), collection_px=(1300, 1200)),
        (204, 308),
    ),
    "mirax": Format(
        "s.mrxs", lambda path, image, mpp: write_mirax(path, image, mpp, corner_px=(75, 139), grid=(10, 8)), (75, 139)
    ),
    "dicom": Format("s.dcm", write_dicom),
    "ome, SubIFDs": Format("s.ome.tif", partial(write_ome_tiff, compression="jpeg")),
    "ome, planes": Format("s.ome.tif", partial(write_ome_tiff, planes="GBR")),
    "big-endian, 16 bits": Format("s.tif", partial(write_odd_tiff, byteorder=">", as_stored=scaled("u2", 65535))),
    "12 bits": Format("s.tif", partial(write_odd_tiff, as_stored=scaled("u2", 4095), **stated(4095))),
    "float": Format("s.tif", partial(write_odd_tiff, as_stored=scaled("f4", 1.0))),
    "rgbx": Format("s.tif", partial(write_odd_tiff, as_stored=four_channels(0), extrasamples=["unspecified"])),
    "webp": Format("s.tif", partial(write_odd_tiff, compression="webp")),
    "jpeg 2000": Format("s.tif", partial(write_odd_tiff, compression="jpeg2000")),
    "strips": Format("s.tif", partial(write_odd_tiff, tile=None, rowsperstrip=11)),
}


def darkness(images: np.ndarray) -> np.ndarray:
    """Logits of a network that finds lesion where green is dark."""
    return (95 - images[..., 1]) / 4


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    picture = np.full((HEIGHT, WIDTH, 3), GLASS, dtype=np.int16)
    for (left, top, right, bottom), colour in ((TISSUE, PINK), (LESION, DARK)):
        picture[top:bottom, left:right] = colour
    noise = np.random.default_rng(5).integers(-6, 7, (HEIGHT, WIDTH, 1), dtype=np.int16)
    return (picture + noise).astype(np.uint8)


@pytest.fixture(scope="module")
def run_settings(pytestconfig: pytest.Config) -> RunSettings:
    config = yaml.safe_load((pytestconfig.rootpath / "config/config.yaml").read_text(encoding="utf-8"))
    config["tissue"] = {"mpp": 4.0, "min_area_um2": 500, "min_hole_um2": 500}
    config["tiles"] |= {"region_px": 512, "tile_px": 128}
    return RunSettings.of(config)


@dataclass(frozen=True)
class Chain:
    """One slide on its way: the folder with its files, its row and its record."""

    folder: Path
    row: SlideRow
    settings: RunSettings
    info: SlideInfo

    @classmethod
    def start(cls, folder: Path, row: SlideRow, settings: RunSettings) -> "Chain":
        """Inspect the slide and find its tissue."""
        files = inspection_files(folder)
        inspect_slide(row, files, settings.inspection)
        chain = cls(folder, row, settings, load_info(files.info, files.location))
        find_tissue(chain.info, chain.file("tissue.tif"), settings.tissue)
        return chain

    def file(self, name: str) -> str:
        return str(self.folder / name)

    def stored(self, annotation: str) -> tuple[int, float]:
        """Lesion pixels of the tiles made with an annotation, and the mean green of the image there."""
        output, store_path = self.file("annotation.geojson"), self.file("tiles.h5")
        import_annotation(annotation, self.info, output, self.settings.annotations, mask_mpp=self.row.mask_mpp)
        extraction = Extraction(SPEC, 0.0, 0.0, STAIN, TileCodec())
        extract_tiles(self.info, self.file("tissue.tif"), output, store_path, extraction, provenance={})
        n_lesion, green = 0, 0
        with TileStore(store_path) as store:
            for region in map(store.region, range(len(store))):
                lesion = region.masks == 1
                n_lesion += int(lesion.sum())
                green += int(region.images[lesion][:, 1].sum(dtype=np.int64))
        return n_lesion, green / max(n_lesion, 1)

    def lesions(self) -> list[tuple[float, ...]]:
        """Bounds of the lesions in the GeoJSON that QuPath opens."""
        tissue = TissueMask(self.file("tissue.tif"), self.info)
        settings = PassSettings(0.25 * MAP_SCALE, 64, 0, False, 0.0)
        (mapped,) = sliding_window_maps(
            self.info, tissue, STAIN.table(), [Pixelwise(darkness)], settings, folder=self.folder, threads=1
        )
        metadata = {
            "frame": "test",
            "validated_threshold": None,
            "unreadable": [],
            "provenance": {"model": "f00", "model_training": {}},
        }
        write_map(self.file("map.tif"), mapped.scores, MapNotes("s1", "scores", mapped.mpp, metadata))
        files = LesionFiles(*(self.file(f"lesions.{ending}") for ending in ("tif", "geojson", "tsv", "json")))
        find_lesions(
            self.info,
            self.file("map.tif"),
            self.file("tissue.tif"),
            files,
            LesionSettings(),
            {"code": "x"},
        )
        content = json.loads(Path(files.outlines).read_text(encoding="utf-8"))
        return [shape(feature["geometry"]).bounds for feature in content["features"]]


def moved(corners: tuple[int, ...], by: tuple[int, int]) -> tuple[int, ...]:
    return tuple(corner + by[index % 2] for index, corner in enumerate(corners))


@pytest.mark.parametrize("name", FORMATS)
def test_a_slide_of_any_format(tmp_path, image, run_settings, name):
    made = FORMATS[name]
    path = made.write(tmp_path / made.file, image, 0.25)
    # In QuPath, and in its GeoJSON, the image's corner is the origin.
    (tmp_path / "a.geojson").write_text(json.dumps([_feature("Tumor", LESION)]))
    row = SlideRow("s1", str(path), "train", str(tmp_path / "a.geojson"))
    diagnosis = diagnose(row, run_settings, {})
    assert (diagnosis.errors, diagnosis.lesions, diagnosis.on_tissue) == ([], 1, "lesion 100%")

    chain = Chain.start(tmp_path, row, run_settings)
    assert chain.info.mpp == pytest.approx(0.25)
    assert chain.info.bounds_xy_lv0 == made.corner
    n_lesion, green = chain.stored(row.annotation)
    assert n_lesion == LESION_PX
    assert abs(green - DARK[1]) < 2
    canonical = read_json(tmp_path / "annotation.geojson")
    assert shape(canonical["features"][0]["geometry"]).bounds == moved(LESION, made.corner)
    assert chain.lesions() == [pytest.approx(LESION, abs=MAP_SCALE)]


HOLE, ISLAND = (500, 400, 700, 500), (550, 420, 590, 460)  # in the lesion, and in its hole


@pytest.fixture(scope="module")
def chain(tmp_path_factory, image, run_settings):
    folder = tmp_path_factory.mktemp("annotated")
    path = write_tiff(folder / "s.tif", image, factors=(1, 4))
    return Chain.start(folder, SlideRow("s1", str(path), "train"), run_settings)


def write_bilevel(path: Path) -> None:
    """A mask of 1 bit, half as large as the slide, in which 0 is shown white: the lesion."""
    mask = np.ones((HEIGHT // 2, WIDTH // 2), dtype=np.uint8)
    for value, (left, top, right, bottom) in ((0, LESION), (1, HOLE), (0, ISLAND)):
        mask[top // 2 : bottom // 2, left // 2 : right // 2] = value
    tifffile.imwrite(path, mask, photometric="miniswhite", bitspersample=1)


def write_nested(path: Path, vertex: str) -> None:
    """Regions of one layer: the lesion, its negative region, and an island in that, which comes first."""
    regions = ""
    for corners, negative in ((ISLAND, 0), (LESION, 0), (HOLE, 1)):
        ring = "".join(f'<{vertex} X="{x}" Y="{y}" />' for x, y in box(*corners).exterior.coords[:-1])
        regions += f'<Region Type="{0 if vertex == "Vertex" else "Polygon"}" NegativeROA="{negative}">'
        regions += f"<Vertices>{ring}</Vertices></Region>"
    path.write_text(f'<Annotations><Annotation Name="Lesion"><Regions>{regions}</Regions></Annotation></Annotations>')


def write_outlines(path: Path, write: Callable[..., None]) -> None:
    rings = box(*LESION) - box(*HOLE), box(*ISLAND)
    write(path, {"Lesion": rings, "Fat": [box(150, 180, 300, 290)]})


def write_with_null(path: Path) -> None:
    features = [_feature("Lesion", LESION), _feature("Exclusion", HOLE), _feature("Lesion", ISLAND)]
    path.write_text(json.dumps([*features, {"type": "Feature", "geometry": None, "properties": None}]))


ANNOTATIONS: dict[str, Callable[[Path], None]] = {
    **{name: partial(write_outlines, write=write) for name, write in VECTOR_WRITERS.items()},
    "bilevel.tif": write_bilevel,
    "nested.annotations": partial(write_nested, vertex="V"),
    "nested.xml": partial(write_nested, vertex="Vertex"),
    "null.geojson": write_with_null,
}


@pytest.mark.parametrize("name", ANNOTATIONS)
def test_an_annotation_of_any_format(tmp_path, chain, name):
    ANNOTATIONS[name](tmp_path / name)
    diagnosis = diagnose(replace(chain.row, annotation=str(tmp_path / name)), chain.settings, {})
    assert (diagnosis.errors, diagnosis.lesions) == ([], 2)
    assert diagnosis.on_tissue.startswith("lesion 100%")
    n_lesion, green = chain.stored(str(tmp_path / name))
    assert n_lesion == LESION_PX - 200 * 100 + 40 * 40
    assert abs(green - DARK[1]) < 2


def _feature(name: str, corners: tuple[int, ...]) -> dict:
    geometry = {"type": "Polygon", "coordinates": [[list(xy) for xy in box(*corners).exterior.coords]]}
    return {"type": "Feature", "geometry": geometry, "properties": {"classification": {"name": name}}}
