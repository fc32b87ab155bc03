"""The files of a DICOM slide: which belong to it, what their attributes say, and why OpenSlide does not open them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, pairwise
from pathlib import Path
from statistics import mean

from pydicom import Dataset
from pydicom.filereader import read_partial
from pydicom.misc import is_dicom
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, VLWholeSlideMicroscopyImageStorage

# Before the attributes of each frame, which can take megabytes.
END_OF_HEADER = Tag("PerFrameFunctionalGroupsSequence")
ATTRIBUTES: list[BaseTag | int] = [
    Tag(name)
    for name in (
        *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "ImageType"),
        *("SamplesPerPixel", "NumberOfOpticalPaths"),
        *(
            "Columns",
            "Rows",
            "TotalPixelMatrixColumns",
            "TotalPixelMatrixRows",
            "TotalPixelMatrixFocalPlanes",
            "NumberOfOpticalPaths",
        ),
        *("PixelSpacing", "SharedFunctionalGroupsSequence", "ImagedVolumeWidth", "ImagedVolumeHeight"),
        *("ConcatenationUID", "InConcatenationNumber", "InConcatenationTotalNumber"),
    )
]
MOST_HEADERS = 2**14  # kept in memory: the slides of one folder share its files
VOLUME, RESAMPLED = "VOLUME", "RESAMPLED"  # third and fourth value of ImageType
READABLE = {  # transfer syntaxes that OpenSlide reads
    *("1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"),
}
LARGEST_DISAGREEMENT = 0.02  # of µm/px by PixelSpacing and by ImagedVolumeWidth and -Height
MOST_ROUNDING = 0.05  # of factors; beyond it, decimals are few because the number is round, as 0.0005
MOST_TILES_PADDED = 2  # some scanners pad to an even number of tiles
FEWEST_STEPS = 2  # equal steps between levels, beside which a larger one shows a gap
COPY_ALL = "copy all files of the slide's series into one folder"


@dataclass(frozen=True)
class Instance:
    """A file of a DICOM slide: what its header says.

    Parameters
    ----------
    kind : str
        SOPClassUID.
    uid : str
        SOPInstanceUID; copies of a file have the same.
    image_type : tuple of str
        ImageType, e.g. DERIVED, PRIMARY, VOLUME, RESAMPLED.
    size, tile : (int, int)
        Width and height of the whole level and of a tile; zeros if not given.
    spacing_um : (float, float) or None
        µm/px along x and y.
    spacing_error : float
        By which share the rounding of its decimals may have changed the spacing.
    volume_um : (float, float) or None
        Width and height of the imaged volume.
    level : str
        ConcatenationUID if several files make up the level, else `uid`.
    part, parts : int
        Number of this file among those of the level, from 1, and how many they are.
    """

    path: Path
    series: str
    kind: str
    uid: str
    syntax: str
    image_type: tuple[str, ...]
    size: tuple[int, int]
    tile: tuple[int, int]
    spacing_um: tuple[float, float] | None
    spacing_error: float
    volume_um: tuple[float, float] | None
    samples: int
    focal_planes: int
    optical_paths: int
    level: str
    part: int
    parts: int

    @property
    def is_level(self) -> bool:
        """Whether it belongs to the pyramid; else it is a label, an overview or a thumbnail."""
        return VOLUME in self.image_type[2:3]


def series_of(path: Path) -> list[Instance]:
    """All files of a slide, by name: those in its folder with its SeriesInstanceUID, whatever their names.

    OpenSlide reads the same files. Sub-folders do not count. Empty if `path` is no DICOM file.
    """
    if not path.is_file() or not is_dicom(path) or not (opened := _instance(path)):
        return []
    beside = (_instance(file) for file in sorted(path.parent.iterdir()) if file.is_file())
    return [one for one in beside if one and one.series == opened.series]


def _instance(path: Path) -> Instance | None:
    """What the header of a file says; None if it is no DICOM file or cannot be read, so that OpenSlide skips it too."""
    try:
        state = path.stat()
        return _read_header(path, state.st_size, state.st_mtime_ns)
    except OSError:
        return None


@lru_cache(maxsize=MOST_HEADERS)
def _read_header(path: Path, _size: int, _changed: int) -> Instance | None:
    try:
        with open(path, "rb") as stream:
            header = read_partial(stream, lambda tag, *_: tag >= END_OF_HEADER, specific_tags=ATTRIBUTES)
        return _described(path, header, str(header.file_meta.get("TransferSyntaxUID", "")))
    except OSError:
        raise
    except Exception:  # no DICOM, or so damaged that pydicom raises anything
        return None


def _described(path: Path, header: Dataset, syntax: str) -> Instance:
    spacing, error = _spacing(header)
    volume = [float(header.get(name) or 0) * 1000 for name in ("ImagedVolumeWidth", "ImagedVolumeHeight")]
    uid = str(header.get("SOPInstanceUID", ""))
    return Instance(
        path=path,
        series=str(header.SeriesInstanceUID),
        kind=str(header.get("SOPClassUID", "")),
        uid=uid,
        syntax=syntax,
        image_type=tuple(header.get("ImageType") or ()),
        size=(int(header.get("TotalPixelMatrixColumns") or 0), int(header.get("TotalPixelMatrixRows") or 0)),
        tile=(int(header.get("Columns") or 0), int(header.get("Rows") or 0)),
        spacing_um=spacing,
        spacing_error=error,
        volume_um=(volume[0], volume[1]) if min(volume) > 0 else None,
        samples=int(header.get("SamplesPerPixel") or 0),
        focal_planes=int(header.get("TotalPixelMatrixFocalPlanes") or 1),
        optical_paths=int(header.get("NumberOfOpticalPaths") or 1),
        level=str(header.get("ConcatenationUID") or uid),
        part=int(header.get("InConcatenationNumber") or 1),
        parts=int(header.get("InConcatenationTotalNumber") or 1),
    )


def _spacing(header: Dataset) -> tuple[tuple[float, float] | None, float]:
    """µm/px along x and y, and by which share its decimals may be rounded. DICOM gives mm, between rows first."""
    for groups in header.get("SharedFunctionalGroupsSequence") or ():
        header = next(iter(groups.get("PixelMeasuresSequence") or ()), header)
    values = list(header.get("PixelSpacing") or ())
    if len(values) != 2 or min(values) <= 0:
        return None, 0.0
    error = max(_rounding(str(value)) / float(value) for value in values)
    return (float(values[1]) * 1000, float(values[0]) * 1000), error


def _rounding(decimal: str) -> float:
    """Half a unit of the last place of a decimal number, which may have an exponent."""
    digits, _, exponent = decimal.lower().partition("e")
    return 0.5 * 10.0 ** (int(exponent or 0) - len(digits.partition(".")[2]))


def spacing_factors(series: Sequence[Instance], sizes: Sequence[tuple[int, int]]) -> list[tuple[float, float] | None]:
    """By PixelSpacing: level-0 pixels per pixel of each level, and by which share (at most 0.05) rounding may be off.

    Parameters
    ----------
    sizes : sequence of (int, int)
        Width and height of each level, as OpenSlide lists them.
    """
    levels = [next((one for one in series if one.is_level and one.size == size), None) for size in sizes]
    return [_spacing_factor(levels[0], level) for level in levels]


def _spacing_factor(finest: Instance | None, level: Instance | None) -> tuple[float, float] | None:
    if not (finest and level and finest.spacing_um and level.spacing_um):
        return None
    ratios = (part / full for part, full in zip(level.spacing_um, finest.spacing_um, strict=True))
    return mean(ratios), min(MOST_ROUNDING, level.spacing_error + finest.spacing_error)


def series_flags(series: Sequence[Instance], sizes: Sequence[tuple[int, int]], factors: Sequence[float]) -> list[str]:
    """What is missing or contradictory in the files of a DICOM slide, in words; nothing for other slides.

    Parameters
    ----------
    sizes, factors : sequences
        Width and height of each level, and its downsample factor.
    """
    finest = next((one for one in series if one.is_level and one.size == sizes[0]), None)
    by_spacing = spacing_factors(series, sizes)
    wrong = [
        f"level {level}'s PixelSpacing makes its factor {spaced[0]:.4g}, and its size {factor:.4g}"
        for level, (size, factor, spaced) in enumerate(zip(sizes, factors, by_spacing, strict=True))
        if spaced and abs(spaced[0] / factor - 1) > max(LARGEST_DISAGREEMENT, spaced[1], 1 / min(size))
    ]
    return [*_flags_of(finest), *wrong, *_gaps(factors)] if finest else []


def _flags_of(finest: Instance) -> Iterator[str]:
    said = f" ({mean(finest.spacing_um):.4g} µm/px)" if finest.spacing_um else ""
    if finest.image_type[3:4] == (RESAMPLED,):
        yield f"its finest level{said} is resampled: the file of the full resolution is not in its folder"
    if finest.spacing_um and finest.volume_um:
        sides = zip(finest.volume_um, finest.spacing_um, finest.size, finest.tile, strict=True)
        if not all(_agree(volume / spacing, n_px, tile_px) for volume, spacing, n_px, tile_px in sides):
            by_volume = mean(part / n_px for part, n_px in zip(finest.volume_um, finest.size, strict=True))
            yield f"its PixelSpacing{said} contradicts its imaged volume ({by_volume:.4g} µm/px)"
    if finest.optical_paths > 1:
        yield f"only the first of its {finest.optical_paths} optical paths is read"


def _agree(imaged_px: float, n_px: int, tile_px: int) -> bool:
    """Whether a side's pixels by PixelSpacing are those of the level, which may be padded by less than two tiles."""
    most = LARGEST_DISAGREEMENT * n_px
    return n_px - MOST_TILES_PADDED * tile_px - most <= imaged_px <= n_px + most


def _gaps(factors: Sequence[float]) -> Iterator[str]:
    """A step between two levels that is twice a step or more, among others that are all equal."""
    steps = [round(coarse / fine, 1) for fine, coarse in pairwise(factors)]
    (usual, count), *_ = Counter(steps).most_common(1) or [(0.0, 0)]
    larger = [index for index, step in enumerate(steps) if step != usual]
    if count >= FEWEST_STEPS and len(larger) == 1 and steps[larger[0]] >= usual * usual:
        fine, coarse = (factors[larger[0] + more] for more in (0, 1))
        yield f"a level between the factors {fine:g} and {coarse:g} is missing: its other levels are {usual:g} apart"


def why_refused(path: str) -> tuple[str, str] | None:
    """Finding and remedy for a DICOM file that OpenSlide does not open; None if it is none, or for other reasons."""
    series = series_of(Path(path))
    if not series:
        return None
    opened = next(one for one in series if one.path == Path(path))
    if opened.kind != VLWholeSlideMicroscopyImageStorage:
        kind = UID(opened.kind).name
        return (
            f"{path} is DICOM of another kind ({kind}), no whole-slide image",
            "give a file of the slide's own series",
        )
    levels = [one for one in series if one.is_level]
    if not levels:
        kinds = ", ".join(sorted({"/".join(one.image_type) for one in series}))
        return f"the folder of {path} has no level of its slide (ImageType {kinds})", COPY_ALL
    return _incomplete(levels) or _same_size(levels) or next(filter(None, map(_unreadable, series)), None)


def _incomplete(levels: Sequence[Instance]) -> tuple[str, str] | None:
    for uid in {one.level: one for one in levels}:
        found = {one.part: one for one in levels if one.level == uid}
        some = next(iter(found.values()))
        if missing := sorted(set(range(1, some.parts + 1)) - set(found)):
            numbers = ", ".join(map(str, missing))
            return f"part {numbers} of the {some.parts} parts of {some.path}'s level is not in its folder", COPY_ALL
    return None


def _same_size(levels: Sequence[Instance]) -> tuple[str, str] | None:
    for one, other in combinations(levels, 2):
        if one.size == other.size and one.level != other.level:
            fine, coarse = sorted((one, other), key=lambda level: mean(level.spacing_um or (0.0,)))
            size = f"{one.size[0]}×{one.size[1]} px"
            return (
                f"{fine.path} and {coarse.path} are different levels of one series and both have {size}, which "
                "OpenSlide does not read",
                f"move {coarse.path}, the coarser one or a second scan, to another folder",
            )
    return None


def _unreadable(one: Instance) -> tuple[str, str] | None:
    remedy = "export or convert the slide to 8-bit RGB in JPEG or JPEG 2000, with one focal plane"
    if one.focal_planes > 1:
        return f"{one.path} has {one.focal_planes} focal planes, and OpenSlide reads files of one", remedy
    if one.samples != 3:
        return f"{one.path} has {one.samples} channels, not the three of RGB", remedy
    if one.syntax not in READABLE:
        return f"{one.path} is compressed as {UID(one.syntax).name}, which OpenSlide does not read", remedy
    return None
