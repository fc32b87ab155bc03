"""Write known pixels into the file formats of scanners, as OpenSlide's own driver for each expects them.

Every function takes the file to write, an image of shape (height, width, 3), dtype uint8, and µm/px of level 0, and
returns the path to open. Levels are area means, of the part that divides, as scanners make them. What each driver needs
is in OpenSlide's description of the formats (https://openslide.org/formats/).
"""

import io
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
from imagecodecs import jpeg2k_encode
from PIL import Image
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit, VLWholeSlideMicroscopyImageStorage, generate_uid

TILE_PX = 128
FACTORS = (1, 4)  # of Aperio, Leica and Hamamatsu pyramids
MIRAX_FACTORS = (1, 2)
SCN_NAMESPACE = "http://www.leica-microsystems.com/scn/2010/10/01"
MIRAX_ID = "LesionMap-unit-test-slide"


def reduce(image: np.ndarray, factor: int) -> np.ndarray:
    """Area mean by a whole factor; rows and columns that do not fill a pixel are dropped."""
    height, width = (length // factor for length in image.shape[:2])
    blocks = image[: height * factor, : width * factor].reshape(height, factor, width, factor, 3)
    return np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)


def tiles(image: np.ndarray) -> Iterator[np.ndarray]:
    """Square tiles, row by row; the last ones are filled up by repeating the edge, which does not ring in JPEG."""
    fill = [(0, -length % TILE_PX) for length in image.shape[:2]]
    padded = np.pad(image, (*fill, (0, 0)), mode="edge")
    for y in range(0, padded.shape[0], TILE_PX):
        for x in range(0, padded.shape[1], TILE_PX):
            yield padded[y : y + TILE_PX, x : x + TILE_PX]


def encode(image: np.ndarray, kind: str = "jpeg", **options: object) -> bytes:
    """Encode as PNG, or as JPEG with the options of Pillow."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, kind, **options)
    return stream.getvalue()


def write_aperio(path: Path, image: np.ndarray, mpp: float, compression: str) -> Path:
    """Aperio SVS: tiled levels, the second directory a stripped thumbnail, µm/px in the text of the first.

    `compression` is ``jpeg`` (YCbCr 4:4:4), ``33003`` (JPEG 2000 of YCbCr) or ``33005`` (JPEG 2000 of RGB); JPEG 2000
    is lossless but for the rounding to YCbCr.
    """
    text = f"Aperio Image Library v12.0.15\r\n{image.shape[1]}x{image.shape[0]}|AppMag = 20|MPP = {mpp:.4f}"
    with tifffile.TiffWriter(path) as tiff:
        for factor in FACTORS:
            level = reduce(image, factor)
            if compression == "jpeg":
                write_jpeg_level(tiff, level, description=text)
            else:
                tiff.write(
                    (encode_jpeg2000(tile, ycbcr=compression == "33003") for tile in tiles(level)),
                    shape=level.shape,
                    dtype=np.uint8,
                    tile=(TILE_PX, TILE_PX),
                    photometric="rgb",
                    compression=int(compression),
                    description=text,
                    metadata=None,
                )
            if factor == 1:
                tiff.write(reduce(image, 8), photometric="rgb", rowsperstrip=16, description=text, metadata=None)
    return path


def write_jpeg_level(tiff: tifffile.TiffWriter, level: np.ndarray, **tags: object) -> None:
    """Append a directory of JPEG tiles, YCbCr 4:4:4."""
    tiff.write(
        (encode(tile, quality=100, subsampling=0) for tile in tiles(level)),
        shape=level.shape,
        dtype=np.uint8,
        tile=(TILE_PX, TILE_PX),
        photometric="ycbcr",
        subsampling=(1, 1),
        compression="jpeg",
        metadata=None,
        **tags,
    )


def encode_jpeg2000(tile: np.ndarray, *, ycbcr: bool) -> bytes:
    """Encode losslessly, without the codestream's own colour transform: Aperio's code in the TIFF says what it is."""
    colours = np.asarray(Image.fromarray(tile).convert("YCbCr")) if ycbcr else tile
    return bytes(jpeg2k_encode(colours, codecformat="j2k", reversible=True, mct=False))


def write_ndpi(path: Path, image: np.ndarray, mpp: float, restart_px: int = 0) -> Path:
    """Hamamatsu NDPI: a classic TIFF with 64-bit directory offsets, each level one JPEG strip.

    With `restart_px`, restart markers cut the JPEG of level 0 into tiles of that width and 8 px of height, as scanners
    do, and OpenSlide adds levels by decoding at 1/2, 1/4 and 1/8; the image must then consist of whole tiles.
    """
    content = bytearray(struct.pack("<2sHQ", b"II", 42, 0))
    link = 4  # where the offset of the next directory is to be written
    for factor in FACTORS:
        level, restart = reduce(image, factor), restart_px if factor == 1 else 0
        jpeg = encode(level, quality=100, subsampling=0, restart_marker_blocks=restart // 8)
        tags = ndpi_tags(level.shape, mpp * factor, len(content), jpeg, tiled=restart > 0)
        content += jpeg
        entries = ndpi_entries(tags, content)
        struct.pack_into("<Q", content, link, len(content))
        content += struct.pack("<H", len(tags)) + entries
        link = len(content)
        content += bytes(8 + 4 * len(tags))  # after the link, the upper half of each entry's offset
    path.write_bytes(content)
    return path


def write_vms(path: Path, image: np.ndarray, mpp: float) -> Path:
    """Hamamatsu VMS: a text file that names two JPEGs side by side, a reduced one (the map) and a macro picture.

    Restart markers cut the JPEGs into tiles, which the image must consist of: of 64 × 8 px, of 32 × 8 px in the map.
    """
    half = image.shape[1] // 2
    columns = {"(0,0)": image[:, :half], "(1,0)": image[:, half:]}
    names = {f"ImageFile{place}".replace("(0,0)", ""): part for place, part in columns.items()}
    files = {key: (part, 64) for key, part in names.items()} | {"MapFile": (reduce(image, 4), 32)}
    lines = ["[Virtual Microscope Specimen]", "NoLayers=1", "NoJpegColumns=2", "NoJpegRows=1", "SourceLens=20"]
    height, width = (length * mpp * 1000 for length in image.shape[:2])  # nm
    lines += [f"PhysicalHeight={height:.0f}", f"PhysicalWidth={width:.0f}"]
    for number, (key, (part, restart_px)) in enumerate((files | {"MacroImage": (reduce(image, 8), 8)}).items()):
        name = f"{path.stem} {number}.jpg"
        jpeg = encode(part, quality=100, subsampling=0, restart_marker_blocks=restart_px // 8)
        path.with_name(name).write_bytes(jpeg)
        lines.append(f"{key}={name}")
    path.write_text("\r\n".join(lines) + "\r\n", encoding="utf-8")
    return path


def ndpi_entries(tags: dict[int, tuple], content: bytearray) -> bytes:
    """Directory entries in order of their tags; values of more than 4 bytes are appended to `content`."""
    entries = b""
    for tag, (code, *values) in sorted(tags.items()):
        rational = tag in (282, 283)
        kind = 5 if rational else {"H": 3, "I": 4, "i": 9, "f": 11}[code]
        packed = struct.pack(f"<{len(values)}{code}", *values)
        if len(packed) > 4:
            content += bytes(len(content) % 2)
            at = struct.pack("<I", len(content))
            content += packed
            packed = at
        entries += struct.pack("<HHI4s", tag, kind, len(values) // 2 if rational else len(values), packed)
    return entries


def ndpi_tags(shape: tuple[int, ...], mpp: float, start: int, jpeg: bytes, *, tiled: bool) -> dict[int, tuple]:
    """Tags of one directory: struct code, then values; from 65420 on they are Hamamatsu's own."""
    resolution = ("I", round(1e7 / mpp), 1000)  # pixels per centimetre, as a fraction
    tags = {
        256: ("I", shape[1]),
        257: ("I", shape[0]),
        258: ("H", 8, 8, 8),
        259: ("H", 7),  # JPEG
        262: ("H", 6),  # YCbCr
        273: ("I", start),
        277: ("H", 3),
        278: ("I", shape[0]),  # all rows in one strip
        279: ("I", len(jpeg)),
        282: resolution,
        283: resolution,
        296: ("H", 3),  # centimetre
        65420: ("I", 1),  # format flag
        65421: ("f", 20.0),  # source lens; -1 would be the macro image
        65422: ("i", -1234567),  # nm from the slide's centre, x
        65423: ("i", 7654321),  # nm from the slide's centre, y
        65424: ("i", 0),  # focal plane
    }
    if tiled:
        tags[65426] = ("I", *restart_positions(jpeg))
    return tags


def restart_positions(jpeg: bytes) -> list[int]:
    """Where the entropy-coded data of each restart interval begin."""
    scan = jpeg.index(b"\xff\xda")
    first = scan + 2 + int.from_bytes(jpeg[scan + 2 : scan + 4], "big")
    markers = [at for at in range(first, len(jpeg) - 1) if jpeg[at] == 0xFF and 0xD0 <= jpeg[at + 1] <= 0xD7]
    return [first, *(at + 2 for at in markers)]


def write_scn(
    path: Path, image: np.ndarray, mpp: float, *, corner_px: tuple[int, int], collection_px: tuple[int, int]
) -> Path:
    """Leica SCN: a BigTIFF whose text places the image on the slide (the "collection"), all in nm.

    Level 0 of OpenSlide is the whole collection, with the image's top-left corner at `corner_px`.
    """
    levels = [reduce(image, factor) for factor in FACTORS]
    nm = mpp * 1000
    text = scn_text(
        [level.shape for level in levels],
        corner_nm=(round(corner_px[0] * nm), round(corner_px[1] * nm)),
        size_nm=(round(image.shape[1] * nm), round(image.shape[0] * nm)),
        collection_nm=(round(collection_px[0] * nm), round(collection_px[1] * nm)),
    )
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for factor, level in zip(FACTORS, levels, strict=True):
            write_jpeg_level(
                tiff,
                level,
                description=text if factor == 1 else None,
                resolution=(1e4 / (mpp * factor),) * 2,
                resolutionunit="CENTIMETER",
            )
    return path


def scn_text(
    shapes: list[tuple[int, ...]],
    *,
    corner_nm: tuple[int, int],
    size_nm: tuple[int, int],
    collection_nm: tuple[int, int],
) -> str:
    """Leica's description of one brightfield image, whose levels are the directories of the file in order."""
    dimensions = "".join(
        f'<dimension sizeX="{width}" sizeY="{height}" r="{index}" ifd="{index}"/>'
        for index, (height, width, _) in enumerate(shapes)
    )
    return (
        f'<?xml version="1.0"?><scn xmlns="{SCN_NAMESPACE}">'
        f'<collection name="unit test" sizeX="{collection_nm[0]}" sizeY="{collection_nm[1]}">'
        f'<image name="main"><pixels sizeX="{shapes[0][1]}" sizeY="{shapes[0][0]}">{dimensions}</pixels>'
        f'<view sizeX="{size_nm[0]}" sizeY="{size_nm[1]}" offsetX="{corner_nm[0]}" offsetY="{corner_nm[1]}"/>'
        "<scanSettings><objectiveSettings><objective>20</objective></objectiveSettings><illuminationSettings>"
        "<illuminationSource>brightfield</illuminationSource></illuminationSettings></scanSettings>"
        "</image></collection></scn>"
    )


def write_mirax(
    path: Path, image: np.ndarray, mpp: float, *, corner_px: tuple[int, int], grid: tuple[int, int]
) -> Path:
    """3DHISTECH MIRAX: a folder of PNG tiles, an index to them, and the position where the camera took each.

    `grid` is the columns and rows of camera positions, which alone make the size of level 0; the image's are the first
    ones, shifted to `corner_px`. The last tiles are filled up with white.
    """
    folder = path.with_suffix("")
    folder.mkdir()
    path.write_bytes(encode(reduce(image, 8)))  # the file itself is only a preview
    rows, columns = (-(-length // TILE_PX) for length in image.shape[:2])
    data = bytearray(mirax_positions(corner_px, grid, (columns, rows)))
    pages = [mirax_page(image, factor, grid[0], data) for factor in MIRAX_FACTORS]
    (folder / "Data0000.dat").write_bytes(data)
    (folder / "Index.dat").write_bytes(mirax_index(pages, positions_bytes=9 * grid[0] * grid[1]))
    (folder / "Slidedat.ini").write_text(mirax_slidedat(mpp, grid), encoding="utf-8")
    return path


def mirax_page(image: np.ndarray, factor: int, columns: int, data: bytearray) -> list[tuple[int, int, int, int]]:
    """Append one level's tiles to `data`; return the position of each in level 0, its offset, length and file."""
    step = TILE_PX * factor  # level-0 pixels a tile
    fill = [(0, -length % step) for length in image.shape[:2]]
    padded = np.pad(image, (*fill, (0, 0)), constant_values=255)
    records = []
    for y in range(0, padded.shape[0], step):
        for x in range(0, padded.shape[1], step):
            png = encode(reduce(padded[y : y + step, x : x + step], factor), "png")
            records.append((y // TILE_PX * columns + x // TILE_PX, len(data), len(png), 0))
            data += png
    return records


def mirax_positions(corner_px: tuple[int, int], grid: tuple[int, int], used: tuple[int, int]) -> bytes:
    """Position of each camera image, row by row: a flag, then x and y; zeros where there is none."""
    cells = ((x, y) for y in range(grid[1]) for x in range(grid[0]))
    return b"".join(
        struct.pack("<Bii", 0, corner_px[0] + x * TILE_PX, corner_px[1] + y * TILE_PX)
        if x < used[0] and y < used[1]
        else bytes(9)
        for x, y in cells
    )


def mirax_index(pages: list[list[tuple[int, int, int, int]]], positions_bytes: int) -> bytes:
    """Pointers to the pages of (tile, offset, length, file), one page a level, and to the one of the positions."""
    content = bytearray(b"01.02" + MIRAX_ID.encode())
    roots = len(content)
    levels_at = roots + 8
    positions_at = levels_at + 4 * len(pages)
    content += bytes(8 + 4 * len(pages) + 4)
    struct.pack_into("<ii", content, roots, levels_at, positions_at)
    for index, records in enumerate(pages):
        struct.pack_into("<i", content, levels_at + 4 * index, len(content))
        content += struct.pack("<iiii", 0, len(content) + 8, len(records), 0)
        content += b"".join(struct.pack("<iiii", *record) for record in records)
    struct.pack_into("<i", content, positions_at, len(content))
    content += struct.pack("<9i", 0, len(content) + 8, 1, 0, 0, 0, 0, positions_bytes, 0)
    return bytes(content)


def mirax_slidedat(mpp: float, grid: tuple[int, int]) -> str:
    """What there is, as an INI file; IMAGE_CONCAT_FACTOR is log2 of the step from the level before."""
    sections = {
        "GENERAL": {
            "SLIDE_VERSION": "01.02",
            "SLIDE_ID": MIRAX_ID,
            "IMAGENUMBER_X": grid[0],
            "IMAGENUMBER_Y": grid[1],
            "OBJECTIVE_MAGNIFICATION": 20,
        },
        "HIERARCHICAL": {
            "HIER_COUNT": 1,
            "NONHIER_COUNT": 1,
            "INDEXFILE": "Index.dat",
            "HIER_0_NAME": "Slide zoom level",
            "HIER_0_COUNT": len(MIRAX_FACTORS),
            **{f"HIER_0_VAL_{index}_SECTION": f"LEVEL_{index}" for index in range(len(MIRAX_FACTORS))},
            "NONHIER_0_NAME": "VIMSLIDE_POSITION_BUFFER",
            "NONHIER_0_COUNT": 1,
        },
        "DATAFILE": {"FILE_COUNT": 1, "FILE_0": "Data0000.dat"},
    }
    for index, factor in enumerate(MIRAX_FACTORS):
        sections[f"LEVEL_{index}"] = {
            "IMAGE_CONCAT_FACTOR": min(index, 1),
            "OVERLAP_X": 0,
            "OVERLAP_Y": 0,
            "MICROMETER_PER_PIXEL_X": mpp * factor,
            "MICROMETER_PER_PIXEL_Y": mpp * factor,
            "IMAGE_FILL_COLOR_BGR": 0xFFFFFF,
            "DIGITIZER_WIDTH": TILE_PX,
            "DIGITIZER_HEIGHT": TILE_PX,
            "IMAGE_FORMAT": "PNG",
        }
    return "".join(
        f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in values.items())
        for name, values in sections.items()
    )


def write_dicom(path: Path, image: np.ndarray, mpp: float) -> Path:
    """DICOM whole-slide image: one file a level beside `path`, JPEG tiles of YCbCr 4:2:2, row by row (TILED_FULL)."""
    series = generate_uid()
    for factor in FACTORS:
        file = path if factor == 1 else path.with_stem(f"{path.stem}_{factor}")
        write_instance(file, reduce(image, factor), mpp * factor, resampled=factor > 1, SeriesInstanceUID=series)
    return path


def write_instance(path: Path, level: np.ndarray, mpp: float, *, resampled: bool, **attributes: object) -> Path:
    """One file of a DICOM whole-slide image: a level, with some attributes added or replaced; None removes one."""
    frames = [encode(tile, quality=100, subsampling=1) for tile in tiles(level)]
    dataset = dicom_level(level.shape, mpp, frames, resampled=resampled)
    for name, value in attributes.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


def padded_to_tiles(level: np.ndarray, *, even: bool, fill: int = 255) -> np.ndarray:
    """Fill a level up to whole tiles, or to an even number of them, to the right and below."""
    step = TILE_PX * (2 if even else 1)
    return np.pad(level, (*((0, -length % step) for length in level.shape[:2]), (0, 0)), constant_values=fill)


def dicom_level(shape: tuple[int, ...], mpp: float, frames: list[bytes], *, resampled: bool) -> Dataset:
    """A VL Whole Slide Microscopy Image of one level (DICOM PS3.3 A.32.8), with the attributes that readers need."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = VLWholeSlideMicroscopyImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID = generate_uid()
    dataset.Modality = "SM"
    dataset.ImageType = [
        "DERIVED" if resampled else "ORIGINAL",
        "PRIMARY",
        "VOLUME",
        "RESAMPLED" if resampled else "NONE",
    ]
    dataset.DimensionOrganizationType = "TILED_FULL"
    dataset.TotalPixelMatrixRows, dataset.TotalPixelMatrixColumns = shape[:2]
    dataset.TotalPixelMatrixFocalPlanes = dataset.NumberOfOpticalPaths = 1
    dataset.Rows = dataset.Columns = TILE_PX
    dataset.NumberOfFrames = len(frames)
    dataset.SamplesPerPixel, dataset.PlanarConfiguration, dataset.PixelRepresentation = 3, 0, 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PhotometricInterpretation = "YBR_FULL_422"
    measures = Dataset()
    measures.PixelSpacing = [mpp / 1000, mpp / 1000]  # mm between rows, between columns
    groups = Dataset()
    groups.PixelMeasuresSequence = [measures]
    dataset.SharedFunctionalGroupsSequence = [groups]
    dataset.PixelData = encapsulate(frames)
    return dataset
