"""What a slide is made of: all its files, by its format's own rule; their state, and digests of their content."""

import hashlib
import os
import re
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from lesionmap.errors import ChangedSlideError

MIRAX_INDEX = "Slidedat.ini"
# Names of files in the text files of MIRAX (INDEXFILE = …, FILE_0 = …) and Hamamatsu (ImageFile(0,1)=…) slides.
MIRAX_FILES = re.compile(r"^\s*(?:INDEXFILE|FILE_\d+)\s*=\s*(.+?)\s*$", re.MULTILINE)
HAMAMATSU_FILES = re.compile(r"^\s*(?:ImageFile|MapFile|MacroImage|OptimisationFile)[^=\n]*=\s*(.+?)\s*$", re.MULTILINE)
OF_ONE_FILE = {".svs", ".tif", ".tiff", ".ndpi", ".scn", ".bif", ".svslide", ".czi", ".btf", ".tf8", ".qptiff"}
# In a DICOM folder with more files, those of other slides are told apart by their headers; else all files are watched.
MOST_WATCHED = 64
LONGEST_TEXT = 2**22  # bytes; the text files that name others are a few KB
SAMPLES, SAMPLE_BYTES = 64, 2**16
ABSENT = (-1, -1)


def slide_parts(path: Path) -> list[Path]:
    """All files of a slide: the file that is opened, and those that its format names; some of these may be missing."""
    if path.is_file() and _begins_as_dicom(path) and (series := _series_of(path)):
        return series
    return [path, *_named_files(path)]


def _named_files(path: Path) -> list[Path]:
    """The other files of a MIRAX or Hamamatsu (VMS, VMU) slide, as its text file names them."""
    kind = path.suffix.lower()
    if kind == ".mrxs":
        folder = path.with_suffix("")
        return [folder / MIRAX_INDEX, *(folder / name for name in _names(folder / MIRAX_INDEX, MIRAX_FILES))]
    return [path.parent / name for name in _names(path, HAMAMATSU_FILES)] if kind in (".vms", ".vmu") else []


def _names(index: Path, pattern: re.Pattern[str]) -> list[str]:
    """Names of files in a text file, each once and sorted; none if it is missing."""
    try:
        with open(index, "rb") as stream:
            text = stream.read(LONGEST_TEXT).decode("utf-8-sig", errors="surrogateescape")
    except OSError:
        return []
    return sorted(name for name in set(pattern.findall(text)) if _is_beside(name))


def _is_beside(name: str) -> bool:
    """Whether a name in a slide's text file is of a file in its folder, as its format has it."""
    return "\0" not in name and not Path(name).is_absolute() and ".." not in Path(name).parts


def slide_state(path: str | Path) -> str:
    """Size and dates of all files of a slide on a disk; another value shows that one may have changed.

    Fast: no pixels are read. It is what a slide's inspection depends on, so it must differ after any exchange of files,
    also for older ones, and when a missing file appears.

    Returns
    -------
    str
        Total size in bytes, and the date of the file, in nanoseconds, or a digest of the names, sizes and dates of
        several. Empty if `path` does not exist.
    """
    path = Path(path)
    if (own := _size_and_date(path)) == ABSENT:
        return ""
    states = {file.name: _size_and_date(file) for file in _watched(path)} | {path.name: own}
    if len(states) == 1:
        return f"{own[0]} {own[1]}"
    total = sum(size for size, _ in states.values() if size > 0)
    return f"{total} {hashlib.sha256(repr(sorted(states.items())).encode()).hexdigest()[:16]}"


def _watched(path: Path) -> Iterable[Path]:
    """The files beside `path` whose change may be one of the slide."""
    if path.suffix.lower() in OF_ONE_FILE or not path.is_file():
        return []
    if not _begins_as_dicom(path):
        return _named_files(path)
    with os.scandir(path.parent) as entries:
        beside = [Path(entry.path) for entry in entries if entry.is_file()]
    if len(beside) > MOST_WATCHED:
        return _series_of(path)
    return filter(_begins_as_dicom, beside)


def _series_of(path: Path) -> list[Path]:
    from lesionmap.slides.dicom_series import series_of  # pydicom takes a tenth of a second to load, in every job

    return [file.path for file in series_of(path)]


def _begins_as_dicom(path: Path) -> bool:
    try:
        with open(path, "rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:  # its inspection says why it cannot be read
        return False


def _size_and_date(path: Path) -> tuple[int, int]:
    try:
        state = path.stat()
    except (OSError, ValueError):
        return ABSENT
    return state.st_size, state.st_mtime_ns


def content_digest(path: str | Path) -> str:
    """SHA-256 over the SHA-256 digests of all files of a slide, in the order of their names.

    Files that are named and missing are left out; once they are there, the slide is another one.
    """
    digest = hashlib.sha256()
    for part in _digested(path):
        with open(part, "rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def sampled_digest(path: str | Path) -> str:
    """SHA-256 of the sizes of all files of a slide and of 64 pieces of each; fast, and equal for equal slides."""
    digest = hashlib.sha256()
    for part in _digested(path):
        size = part.stat().st_size
        digest.update(struct.pack("<Q", size))
        with open(part, "rb") as stream:
            for start in sorted({(size - SAMPLE_BYTES) * number // (SAMPLES - 1) for number in range(SAMPLES)}):
                stream.seek(max(0, start))
                digest.update(stream.read(SAMPLE_BYTES))
    return digest.hexdigest()


def _digested(path: str | Path) -> Iterator[Path]:
    """The files of a slide without those that are named and missing, but with the one that is opened."""
    first, *others = slide_parts(Path(path))
    yield first
    yield from (part for part in others if part.exists())


def check_unchanged(path: str, state: str, sample: str) -> None:
    """Refuse a slide that is not the inspected one.

    Parameters
    ----------
    state, sample : str
        :func:`slide_state` and :func:`sampled_digest` at its inspection. A slide that was only touched, or copied with
        another date, is accepted.

    Raises
    ------
    ChangedSlideError
        If it is another slide, or is gone.
    """
    found = slide_state(path)
    if found == state:
        return
    try:
        if found and sampled_digest(path) == sample:
            return
        finding = f"{path} is not the file that was inspected" if found else f"{path} is no longer there"
    except OSError as error:
        finding = f"{path} can no longer be read ({error.strerror or error})"
    raise ChangedSlideError(
        stage="slides",
        finding=finding,
        remedy="put the slide back, or run again: it is then inspected again, and what depends on it is made anew",
    )
