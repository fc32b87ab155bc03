"""Check the files of a slide: find damage, and name files that are not slides."""

import math
import re
import struct
from itertools import chain
from pathlib import Path

import openslide
import tifffile

from lesionmap.slides.dicom_series import why_refused
from lesionmap.slides.identity import MIRAX_INDEX
from lesionmap.slides.tiff_reader import CONVERT, COPY_AGAIN, Unusable
from lesionmap.slides.tiff_slide import TIFF_STARTS, TiffSlide

JPEG_START = b"\xff\xd8\xff"
OTHER_STARTS = {
    b"\x1f\x8b": ("is a gzip archive", "unpack it"),
    b"PK\x03\x04": ("is a zip archive", "unpack it"),
    b"7z\xbc\xaf": ("is a 7-Zip archive", "unpack it"),
    JPEG_START: (
        "is a single JPEG picture, not a slide",
        "export a whole-slide format, or make a tiled TIFF of it",
    ),
    b"\x89PNG": ("is a PNG picture, not a slide", "export a whole-slide format, or make a tiled TIFF of it"),
    b"\0" * 16: ("begins with zeros, as interrupted copies do", "copy it again from the scanner or archive"),
}
ROUNDED = 0.05  # by how much the proportions of a level may differ from those of level 0
UNKNOWN = "convert it to a tiled, pyramidal TIFF, or, if no other program reads it either, copy it again"


def why_unopened(path: str) -> tuple[str, str] | None:
    """Finding and remedy for a file that is missing, unreadable, not a slide, or damaged; None if unknown."""
    try:
        if not Path(path).exists():
            return f"the file {path} does not exist", "correct its path in the slide sheet"
        if Path(path).is_file() and Path(path).stat().st_size == 0:
            return f"the file {path} is empty (0 bytes)", "copy it again from the scanner or archive"
        if refusal := why_refused(path):
            return refusal
        if openslide.OpenSlide.detect_format(path) is None:
            return what_it_is(path)
        return tiff_damage(path) or _misfits(path)
    except OSError as error:
        return cannot_be_read(path, error)


def cannot_be_read(path: str, error: OSError) -> tuple[str, str]:
    """Finding and remedy for a file that the operating system does not let us read."""
    finding = f"the file {path} cannot be read ({error.strerror or error})"
    return finding, "check its permissions, and that its disk is there, and run again"


def what_it_is(path: str) -> tuple[str, str]:
    """Finding and remedy for a file that OpenSlide does not recognize as a slide."""
    if Path(path).is_dir():
        return f"{path} is a folder", "give the file that the scanner's viewer opens, e.g. the .mrxs or one .dcm"
    with open(path, "rb") as stream:
        head = stream.read(1000)
    if head.startswith(TIFF_STARTS):
        return tiff_damage(path) or _what_tiff_it_is(path)
    if head.startswith(JPEG_START) and (found := _what_mirax_it_is(Path(path))):
        return found
    for start, (kind, remedy) in OTHER_STARTS.items():
        if head.startswith(start):
            return f"{path} {kind}", remedy
    return _what_text_it_is(path, head)


def _what_mirax_it_is(path: Path) -> tuple[str, str] | None:
    """Why a MIRAX slide cannot be opened: its .mrxs is a small JPEG, and its pixels are in a folder of that name."""
    folder, target = path.with_suffix(""), path.resolve()
    if (folder / MIRAX_INDEX).exists():
        renamed = f"{path} is a MIRAX slide without the ending .mrxs", f"rename it to {folder.name}.mrxs"
        return None if path.suffix == ".mrxs" else renamed
    if path.suffix.lower() != ".mrxs":
        return None
    if path.is_symlink() and (target.with_suffix("") / MIRAX_INDEX).exists():
        finding = f"{path} is a link to a MIRAX slide, and beside it is no folder {folder.name} with its pixels"
        return finding, f"link that folder too, or write {target} into the slide sheet"
    if folder.is_dir():
        return f"the folder {folder} of a MIRAX slide lacks {MIRAX_INDEX}", "copy the folder again, with all its files"
    indices = sorted(path.parent.glob(f"*/{MIRAX_INDEX}"))
    unclaimed = [index.parent.name for index in indices if not index.parent.with_suffix(".mrxs").exists()]
    remedy = f"copy the folder {folder.name} beside it"
    if unclaimed:
        remedy += f", or, if it was renamed, give file and folder the same name again (there is {', '.join(unclaimed)})"
    return f"{path} is only the start of a MIRAX slide: the folder {folder} with its pixels does not exist", remedy


def _what_tiff_it_is(path: str) -> tuple[str, str]:
    try:
        TiffSlide(path).close()
    except Unusable as error:
        return f"{path} {error.finding}", error.remedy
    except Exception:  # a damaged file can raise anything
        return f"{path} is a TIFF whose first directory cannot be read", COPY_AGAIN
    return _misfits(path) or (f"{path} is a TIFF that OpenSlide does not read", CONVERT)


def _misfits(path: str) -> tuple[str, str] | None:
    command = kept_levels(path)
    finding = f"{path} is a TIFF that OpenSlide does not read, as it has images that are no levels of the first"
    return (finding, CONVERT + command) if command else None


def _what_text_it_is(path: str, head: bytes) -> tuple[str, str]:
    text = head.decode("latin-1").strip()
    if re.match(r"(?i)<!doctype html|<html", text):
        return f"{path} is a web page, probably a login or error page", "download the slide again"
    if len(text) > 100 and re.fullmatch(r"[A-Za-z0-9+/=\s]+", text):
        return f"{path} is base64 text, as made for mail, not the slide itself", "decode it"
    if re.fullmatch(r"[ -~\s]*", text):
        return f"{path} is text, not an image (it begins with {text[:20]!r})", "give the slide's own file"
    return f"{path} is not in a known slide format (it begins with {head[:8].hex(' ')})", UNKNOWN


def tiff_damage(path: str) -> tuple[str, str] | None:
    """Finding and remedy for a TIFF-based slide (also SVS, NDPI, SCN, BIF, QPTIFF) that is damaged; else None.

    OpenSlide opens a truncated file if its directories are there. Later, reading the missing part fails or gives
    white pixels.
    """
    size = Path(path).stat().st_size
    try:
        with tifffile.TiffFile(path) as tiff:
            finding = _directory_damage(tiff, size)
    except Exception:  # a damaged or exotic file can raise anything; failing to parse does not prove damage
        return None
    return (f"{path} {finding}", COPY_AGAIN) if finding else None


def kept_levels(path: str) -> str:
    """How to leave out of a TIFF what is no level: the command that copies the directories in proportion to the first.

    Returns
    -------
    str
        The end of a remedy; empty if `path` is no TIFF, or has no other directories.
    """
    try:
        with tifffile.TiffFile(path) as tiff:
            height, width = tiff.pages.first.shape[:2]
            shapes = [page.shape[:2] for page in tiff.pages]
        in_proportion = [abs(rows * width / (columns * height) - 1) < ROUNDED for rows, columns in shapes]
    except Exception:  # a damaged or exotic file can raise anything
        return ""
    kept = ",".join(str(number) for number, fits in enumerate(in_proportion) if fits)
    return "" if all(in_proportion) else f", or keep its levels alone: tiffcp {path},{kept} NEW.tif"


def _directory_damage(tiff: tifffile.TiffFile, size: int) -> str | None:
    # Some NDPI files lack the upper halves of their offsets; in files below 4 GiB these are zero.
    mask = 2**32 - 1 if tiff.is_ndpi and size < 2**32 else -1
    seen: set[int] = set()
    for number, page in enumerate(chain.from_iterable([page, *(page.pages or ())] for page in tiff.pages)):
        if page.offset in seen:
            return f"is damaged: directory {number} repeats an earlier one"
        seen.add(page.offset)
        pieces = zip(page.dataoffsets, page.databytecounts, strict=False)
        end = max(((at & mask) + (length & mask) for at, length in pieces), default=0)
        if end > size:
            return f"is cut short: image {number} ends at byte {end}, the file at {size}"
        listed, needed = len(page.dataoffsets), math.prod(page.chunked)
        if isinstance(page, tifffile.TiffPage) and page.is_tiled and listed < needed:
            return f"is damaged: image {number} lists {listed} of the {needed} tiles that its size asks for"
    following = _next_directory(tiff) & mask
    if following < size:
        return None
    return f"is cut short: directory {len(seen)} is at byte {following}, the file ends at {size}"


def _next_directory(tiff: tifffile.TiffFile) -> int:
    """Offset of the directory after the last one found; 0 ends the chain, an offset beyond the file breaks it."""
    layout, stream = tiff.tiff, tiff.filehandle
    stream.seek(tiff.pages[-1].offset)
    tags = struct.unpack(layout.tagnoformat, stream.read(layout.tagnosize))[0]
    stream.seek(tiff.pages[-1].offset + layout.tagnosize + tags * layout.tagsize)
    return int(struct.unpack(layout.offsetformat, stream.read(layout.offsetsize))[0])
