"""Read and write tile stores: one HDF5 file per slide, readable with only h5py and hdf5plugin (config/README.md)."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from lesionmap.annotations.classes import STORED_CLASSES
from lesionmap.files.atomic import written_whole
from lesionmap.files.records import read_json
from lesionmap.geometry.tiling import TileSpec
from lesionmap.slides.identity import check_unchanged
from lesionmap.slides.slide import SlideInfo
from lesionmap.stain.table import StainMatch
from lesionmap.tiles.codec import FILTER, LOSSLESS, TileCodec, pack, unpack
from lesionmap.tiles.region_reader import RegionReader
from lesionmap.tissue.quality import SHARES, RegionQuality

FORMAT_VERSION = 5
UNJUDGED = RegionQuality()


@dataclass(frozen=True)
class Region:
    """One region at both resolutions; s is the side of a tile in pixels, n the number of its stored tiles.

    Parameters
    ----------
    xy_lv0 : (float, float)
        Top-left corner in level-0 pixels.
    low_image : (s, s, 3) uint8
        The whole region at low resolution, normalised.
    low_mask : (s, s) uint8
        Class codes at low resolution.
    judged_mask : (s, s) uint8
        The same where metrics count a pixel (:func:`lesionmap.annotations.classes.judged`), 255 elsewhere.
    row_col : (n, 2) uint8
        Row and column of each tile in the region.
    images : (n, s, s, 3) uint8
        The tiles, normalised.
    masks : (n, s, s) uint8
        Class codes of the tiles.
    """

    xy_lv0: tuple[float, float]
    low_image: NDArray[np.uint8]
    low_mask: NDArray[np.uint8]
    judged_mask: NDArray[np.uint8]
    row_col: NDArray[np.uint8]
    images: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    quality: RegionQuality = UNJUDGED


@dataclass(frozen=True)
class PackedRegion:
    """A :class:`Region` in its stored form: each image and mask compressed."""

    xy_lv0: tuple[float, float]
    low_image: bytes
    low_mask: bytes
    judged_mask: bytes
    row_col: NDArray[np.uint8]
    images: list[bytes]
    masks: list[bytes]
    quality: RegionQuality
    class_pixels: NDArray[np.int64]


def packed(region: Region, codec: TileCodec) -> PackedRegion:
    """Compress a region that is in memory."""
    return PackedRegion(
        xy_lv0=region.xy_lv0,
        low_image=codec.encode(region.low_image),
        low_mask=pack(region.low_mask),
        judged_mask=pack(region.judged_mask),
        row_col=region.row_col,
        images=[codec.encode(image) for image in region.images],
        masks=[pack(mask) for mask in region.masks],
        quality=region.quality,
        class_pixels=class_pixels(region.masks),
    )


def class_pixels(masks: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count the pixels of each of :data:`lesionmap.annotations.classes.STORED_CLASSES` in masks of any shape."""
    if not masks.any():  # by far the most common case
        return np.array([masks.size] + [0] * (len(STORED_CLASSES) - 1))
    return np.array([np.count_nonzero(masks == code) for code in range(len(STORED_CLASSES))])


class TileStoreWriter:
    """Appends regions to an open store; made by :func:`new_store`."""

    def __init__(self, file: h5py.File, spec: TileSpec, codec: TileCodec, *, with_images: bool) -> None:
        side = spec.tile_px
        self._file = file
        self._regions = 0
        self._add("regions/xy", (2,), "f8")
        self._add("regions/unreadable", (4,), "f8")
        self._add("regions/class_pixels", (len(STORED_CLASSES),), "u4")
        for name in SHARES:
            self._add(f"regions/{name}", (), "f4")
        self._add("tiles/region", (), "u4")
        self._add("tiles/row_col", (2,), "u1")
        self._add_packed("low/judged_mask", (side, side))
        for view in ("low", "high"):
            self._add_packed(f"{view}/mask", (side, side))
            if view == "high" and not with_images:
                continue
            if codec.name == LOSSLESS:
                self._add_packed(f"{view}/image", (side, side, 3))
            else:
                self._add(f"{view}/image", (), h5py.vlen_dtype(np.uint8))

    def _add(self, name: str, shape: tuple[int, ...], dtype: Any) -> None:
        self._file.create_dataset(name, (0, *shape), dtype, maxshape=(None, *shape), chunks=(4096, *shape))

    def _add_packed(self, name: str, shape: tuple[int, ...]) -> None:
        self._file.create_dataset(name, (0, *shape), "u1", maxshape=(None, *shape), chunks=(1, *shape), **FILTER)

    def append(self, region: PackedRegion) -> None:
        """Append one region and its tiles."""
        self._extend("regions/xy", np.array([region.xy_lv0]))
        self._extend("regions/class_pixels", region.class_pixels[None])
        for name in SHARES:
            self._extend(f"regions/{name}", np.array([getattr(region.quality, name)]))
        self._extend("tiles/region", np.full(len(region.row_col), self._regions, dtype=np.uint32))
        self._extend("tiles/row_col", region.row_col)
        self._extend_packed("low/image", [region.low_image])
        self._extend_packed("low/mask", [region.low_mask])
        self._extend_packed("low/judged_mask", [region.judged_mask])
        if region.images:
            self._extend_packed("high/image", region.images)
        self._extend_packed("high/mask", region.masks)
        self._regions += 1

    def skip(self, box_lv0: tuple[float, float, float, float]) -> None:
        """Record a region that cannot be read: x, y, width, height in level-0 pixels."""
        self._extend("regions/unreadable", np.array([box_lv0]))

    def _extend(self, name: str, rows: NDArray[Any]) -> None:
        dataset = self._file[name]
        before = len(dataset)
        dataset.resize(before + len(rows), axis=0)
        if len(rows):
            dataset[before:] = rows

    def _extend_packed(self, name: str, chunks: list[bytes]) -> None:
        dataset = self._file[name]
        before = len(dataset)
        dataset.resize(before + len(chunks), axis=0)
        for index, chunk in enumerate(chunks, start=before):
            if dataset.ndim == 1:
                dataset[index] = np.frombuffer(chunk, dtype=np.uint8)
            else:
                dataset.id.write_direct_chunk((index,) + (0,) * (dataset.ndim - 1), chunk)


@contextmanager
def new_store(
    path: str | Path,
    spec: TileSpec,
    attributes: dict[str, Any],
    codec: TileCodec,
    slide: tuple[SlideInfo, str] | None = None,
) -> Iterator[TileStoreWriter]:
    """Open a store for writing; the file gets its name only when it is complete.

    Parameters
    ----------
    attributes : dict
        Metadata written as attributes, as JSON if nested: slide, µm/px, stain profiles, provenance.
    slide : (SlideInfo, str), optional
        The slide to read the tiles' images from on demand, and the file that says where it is. Without it the images
        are stored.
    """
    with written_whole(path) as draft, h5py.File(draft, "w", libver="v110") as file:
        file.attrs["format_version"] = FORMAT_VERSION
        metadata = asdict(spec) | {"codec": codec.name, "quality": codec.quality} | attributes
        if slide:
            place = os.path.relpath(slide[1], Path(path).parent)
            metadata |= {"slide_info": asdict(slide[0]) | {"path": ""}, "slide_location": place}
        for key, value in metadata.items():
            file.attrs[key] = json.dumps(value) if isinstance(value, dict) else value
        yield TileStoreWriter(file, spec, codec, with_images=not slide)


class TileStore(AbstractContextManager["TileStore"]):
    """A slide's tiles, open for reading; a context manager."""

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self._file = h5py.File(path, "r")
        owners = self._file["tiles/region"][:]
        self._first = np.searchsorted(owners, np.arange(len(self) + 1))
        self._codec = TileCodec(str(self._file.attrs["codec"]), int(self._file.attrs["quality"]))
        self._reader = None if "high/image" in self._file else self._open_slide()

    def _open_slide(self) -> RegionReader:
        """The slide where it is now, if it is still the same: it may have been moved since the tiles were cut."""
        info, match = (json.loads(self._file.attrs[key]) for key in ("slide_info", "stain"))
        seen = read_json(Path(self.path).parent / str(self._file.attrs["slide_location"]))
        check_unchanged(**seen)
        return RegionReader(SlideInfo.of(info | {"path": seen["path"]}), self.spec, StainMatch.of(match), "train")

    def __exit__(self, *error: object) -> None:
        self._file.close()
        if self._reader:
            self._reader.__exit__(*error)

    def __len__(self) -> int:
        return len(self._file["regions/xy"])

    @property
    def spec(self) -> TileSpec:
        """How the slide was cut."""
        attrs = self._file.attrs
        return TileSpec(int(attrs["region_px"]), int(attrs["tile_px"]), float(attrs["mpp"]))

    @property
    def slide(self) -> str:
        """Id of the slide."""
        return str(self._file.attrs["slide"])

    @property
    def identity(self) -> str:
        """SHA-256 of the slide's bytes."""
        return str(self._file.attrs["identity"])

    def digest(self) -> str:
        """Digest of the metadata and tables of the store (with the classes of every region), but not of its images.

        Returns
        -------
        str
            16 hexadecimal digits.
        """
        metadata = {key: str(value) for key, value in self._file.attrs.items()}
        digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
        for group in ("regions", "tiles"):
            for name in sorted(self._file[group]):
                digest.update(self._file[group][name][:].tobytes())
        return digest.hexdigest()[:16]

    @property
    def stain_reference(self) -> dict[str, Any]:
        """Stain profile that the pixels were normalised to, in its JSON form."""
        reference: dict[str, Any] = json.loads(self._file.attrs["stain"])["reference"]
        return reference

    @property
    def n_tiles(self) -> int:
        """Number of tiles in all regions."""
        return len(self._file["tiles/region"])

    def tiles_of_regions(self) -> NDArray[np.int64]:
        """Number of tiles of each of the R regions; (R,) int64."""
        return np.diff(self._first)

    @property
    def unreadable(self) -> list[list[float]]:
        """Regions that could not be read: x, y, width, height in level-0 pixels."""
        boxes: list[list[float]] = self._file["regions/unreadable"][:].tolist()
        return boxes

    def region(self, index: int) -> Region:
        """Read region `index` with all its tiles."""
        tiles, alone = range(int(self._first[index]), int(self._first[index + 1])), range(index, index + 1)
        x, y = self._file["regions/xy"][index].tolist()
        row_col = self._file["tiles/row_col"][tiles.start : tiles.stop]
        return Region(
            xy_lv0=(x, y),
            low_image=self.low_image(index),
            low_mask=self._masks("low/mask", alone)[0],
            judged_mask=self._masks("low/judged_mask", alone)[0],
            row_col=row_col,
            images=self._read(self._reader, (x, y), row_col) if self._reader else self._images("high/image", tiles),
            masks=self._masks("high/mask", tiles),
            quality=RegionQuality(*(float(self._file[f"regions/{name}"][index]) for name in SHARES)),
        )

    def _read(self, reader: RegionReader, xy_lv0: tuple[float, float], row_col: NDArray[np.uint8]) -> NDArray[np.uint8]:
        kept = np.zeros((self.spec.tiles_per_side,) * 2, dtype=bool)
        kept[row_col[:, 0], row_col[:, 1]] = True
        return reader.region(xy_lv0, kept)[0]

    def low_image(self, index: int) -> NDArray[np.uint8]:
        """Read only the low-resolution image of region `index`; (s, s, 3) uint8."""
        image: NDArray[np.uint8] = self._images("low/image", range(index, index + 1))[0]
        return image

    def _images(self, name: str, indices: range) -> NDArray[np.uint8]:
        side = self.spec.tile_px
        images = np.empty((len(indices), side, side, 3), dtype=np.uint8)
        for image, index in zip(images, indices, strict=True):
            self._codec.decode(self._chunk(name, index), image)
        return images

    def _masks(self, name: str, indices: range) -> NDArray[np.uint8]:
        side = self.spec.tile_px
        masks = np.empty((len(indices), side, side), dtype=np.uint8)
        for mask, index in zip(masks, indices, strict=True):
            unpack(self._chunk(name, index), mask)
        return masks

    def _chunk(self, name: str, index: int) -> Any:
        """One image or mask as stored; it is decompressed outside HDF5, which runs one thread at a time."""
        dataset = self._file[name]
        if dataset.ndim == 1:
            return dataset[index].tobytes()
        return dataset.id.read_direct_chunk((index,) + (0,) * (dataset.ndim - 1))[1]

    def class_pixels(self) -> NDArray[np.int64]:
        """Pixels of each class in the tiles of each region; (R, 4) int64: background, lesion, vessel, fat."""
        return np.asarray(self._file["regions/class_pixels"][:], dtype=np.int64)

    def quality(self, share: str) -> NDArray[np.float32]:
        """Share of ``blur``, ``pen`` or ``fold`` in each of the R regions; (R,) float32."""
        return np.asarray(self._file[f"regions/{share}"][:], dtype=np.float32)
