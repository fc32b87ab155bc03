"""Before anything else: what each slide is, and whether it can be used."""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openslide

from lesionmap.errors import SlideError
from lesionmap.files import write_json
from lesionmap.slides import Slide, SlideInfo, open_slide
from lesionmap.tiling import map_size

INSPECTED_BOX_PX = 512
FEWEST_INSPECTED_BOXES = 64
NEEDED_BY = {"train": "tiles", "val": "tiles", "test": "inference", "inference": "inference"}


@dataclass(frozen=True)
class SlideRow:
    """One row of the slide sheet.

    Parameters
    ----------
    slide : str
        Id: letters, digits, ``._-``.
    path : str
        The slide file.
    split : str
        ``train``, ``val``, ``test`` or ``inference``.
    annotation : str
        The annotation file; empty for inference.
    mpp : float or None
        µm/px of level 0 that overrides the file's own.
    """

    slide: str
    path: str
    split: str
    annotation: str
    mpp: float | None


def inspect_slide(
    row: SlideRow, output: str, *, read_share: float, mpp_tolerance: float, needed_mpp: dict[str, float]
) -> None:
    """Write the record of one slide: what it is, or why it is in quarantine.

    Parameters
    ----------
    row : SlideRow
    output : str
        JSON with the keys ``slide``, ``split``, ``verdict`` (``ok`` or ``quarantined``), and either ``info`` or
        ``stage``, ``finding`` and ``remedy``.
    read_share : float
        Share of each level's area that is read to find damage, 0 to 1; at least 64 boxes of 512 px a level.
    mpp_tolerance : float
        By how much a slide may be coarser than its role needs, e.g. 0.1 for 10 %.
    needed_mpp : dict
        ``{"tiles": µm/px of training, "inference": µm/px of the pass over the whole slide}``.
    """
    record: dict[str, Any] = {"slide": row.slide, "split": row.split}
    try:
        info = describe(row)
        _check_resolution(info, row.split, needed_mpp[NEEDED_BY[row.split]], mpp_tolerance)
        _check_annotation(row)
        _check_readable(info, read_share)
        record |= {"verdict": "ok", "info": vars(info)}
    except SlideError as error:
        record |= {
            "verdict": "quarantined",
            "stage": error.stage,
            "finding": error.finding,
            "remedy": error.remedy,
        }
    write_json(output, record)


def describe(row: SlideRow) -> SlideInfo:
    """What the slide's file says of itself, with the sheet's µm/px taking precedence.

    Raises
    ------
    SlideError
        If it cannot be opened or its µm/px is unknown.
    """
    with open_slide(row.path, row.slide, "inspect_slide") as handle:
        properties = handle.properties
        size = handle.dimensions
        return SlideInfo(
            slide=row.slide,
            path=row.path,
            identity=content_digest(row.path),
            vendor=properties.get(openslide.PROPERTY_NAME_VENDOR, "unknown"),
            size_lv0=size,
            mpp=row.mpp or _vendor_mpp(properties, row.slide),
            downsamples=tuple(
                _true_downsample(size, level, factor)
                for level, factor in zip(handle.level_dimensions, handle.level_downsamples, strict=True)
            ),
            level_sizes=tuple(handle.level_dimensions),
            bounds_xy_lv0=(
                int(properties.get(openslide.PROPERTY_NAME_BOUNDS_X, 0)),
                int(properties.get(openslide.PROPERTY_NAME_BOUNDS_Y, 0)),
            ),
        )


def _vendor_mpp(properties: Any, slide: str) -> float:
    try:
        mpp_x, mpp_y = float(properties["openslide.mpp-x"]), float(properties["openslide.mpp-y"])
    except (KeyError, ValueError):
        mpp_x = mpp_y = math.nan
    if not (mpp_x > 0 and mpp_y > 0 and math.isfinite(mpp_x + mpp_y)):
        raise SlideError(
            slide=slide,
            stage="inspect_slide",
            finding="the file does not say its resolution (no µm/px)",
            remedy="write the scanner's µm/px of level 0 into the column mpp of the slide sheet",
        )
    return (mpp_x + mpp_y) / 2


def _true_downsample(size_lv0: tuple[int, int], size: tuple[int, int], reported: float) -> float:
    # A level of an odd-sized slide loses a fraction of a pixel to rounding, which OpenSlide folds into its factor;
    # the pyramid was made with the whole number.
    whole = round(reported)
    ratios = [(full / whole, part) for full, part in zip(size_lv0, size, strict=True)]
    rounded = all(math.floor(exact) <= part <= math.ceil(exact) for exact, part in ratios)
    return float(whole) if rounded else float(reported)


def _check_resolution(info: SlideInfo, split: str, needed_mpp: float, tolerance: float) -> None:
    if info.mpp > needed_mpp * (1 + tolerance):
        raise SlideError(
            slide=info.slide,
            stage="inspect_slide",
            finding=f"{info.mpp:.4g} µm/px is coarser than the {needed_mpp:g} µm/px that the split '{split}' needs",
            remedy="use a finer scan, or split 'inference' if it is fine enough for that"
            if split in ("train", "val")
            else "use a finer scan",
        )


def _check_annotation(row: SlideRow) -> None:
    if row.annotation and not Path(row.annotation).is_file():
        raise SlideError(
            slide=row.slide,
            stage="inspect_slide",
            finding=f"its annotation {row.annotation} does not exist",
            remedy="correct the path in the slide sheet",
        )


def _check_readable(info: SlideInfo, read_share: float) -> None:
    with Slide(info, "inspect_slide") as slide:
        for level, (width, height) in enumerate(info.level_sizes):
            for x, y in _sampled_boxes(width, height, read_share):
                box = (min(INSPECTED_BOX_PX, width - x), min(INSPECTED_BOX_PX, height - y))
                slide.read_level(level, (x, y), box)


def _sampled_boxes(width: int, height: int, share: float) -> Iterator[tuple[int, int]]:
    columns, rows = map_size((width, height), INSPECTED_BOX_PX)
    wanted = min(columns * rows, max(FEWEST_INSPECTED_BOXES, math.ceil(share * columns * rows)))
    for index in np.unique(np.linspace(0, columns * rows - 1, wanted).round().astype(int)):
        yield int(index % columns) * INSPECTED_BOX_PX, int(index // columns) * INSPECTED_BOX_PX


def content_digest(path: str | Path) -> str:
    """SHA-256 of a slide's bytes; of all its files, by name, where the format spreads over several."""
    digest = hashlib.sha256()
    for part in _slide_files(Path(path)):
        with open(part, "rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _slide_files(path: Path) -> list[Path]:
    if path.suffix.lower() == ".dcm":
        return sorted(path.parent.glob("*.dcm"))
    companion = path.with_suffix("")
    beside = sorted(part for part in companion.rglob("*") if part.is_file()) if companion.is_dir() else []
    return [path, *(beside if path.suffix.lower() in (".mrxs", ".vms", ".vmu") else [])]
