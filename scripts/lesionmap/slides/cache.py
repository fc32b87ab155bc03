"""Keep copies of slides on a nearby disk, up to a size limit: of remote slides, or of all if the config says so."""

import fcntl
import hashlib
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from lesionmap.errors import ChangedSlideError, LesionMapError, RemoteError, SettingsError
from lesionmap.files.records import read_json, write_text
from lesionmap.servers.urls import file_name, is_remote, n_bytes, why_unavailable
from lesionmap.slides.identity import check_unchanged, content_digest, slide_parts, slide_state
from lesionmap.slides.slide import SlideInfo, load_info

STAGE = "fetch"
REMOTE = "remote"
ENTRY = re.compile(r"[0-9a-f]{16}-\d+")  # key and size in bytes; other names in the folder are never removed
DIGEST, LOCK = "digest.txt", "lock"  # an entry without a digest is incomplete
POLL_SECONDS = 1


@dataclass(frozen=True)
class CacheSettings:
    """Which slides are copied before they are read, and where to.

    Parameters
    ----------
    of : str
        ``remote``: slides on a server; ``all``: every slide.
    folder : str
        Folder of the copies. Environment variables in it are expanded on the machine that reads the slide.
    most_gb : float
        Size limit for all copies together, GB (1e9 bytes). The least recently used copies are removed to make room.
    roots : sequence of str or None
        Where servers may redirect to (:func:`lesionmap.servers.remote.states`).
    """

    of: str
    folder: str
    most_gb: float
    roots: Sequence[str] | None = ()

    @classmethod
    def of_slides(cls, slides: Mapping[str, Any]) -> "CacheSettings":
        """From the config's ``slides``."""
        return cls(**slides["copies"], roots=slides["roots"])


IN_PLACE = CacheSettings(REMOTE, "slide_copies", 0)


@contextmanager
def cached_slide(info: str, location: str, slides: Mapping[str, Any]) -> Iterator[SlideInfo]:
    """Give a slide to read in the block: the original, or its copy; before and after, see that it is the inspected one.

    Parameters
    ----------
    info, location : str
        Files of :class:`lesionmap.slides.inspection.InspectionFiles`.
    slides : mapping
        The config's ``slides``.

    Raises
    ------
    SlideError
        The inspection's own error, if it refused the slide.
    ChangedSlideError
        If the slide has changed since its inspection, or changes while it is read.
    RemoteError
        If the slide cannot be fetched.
    SettingsError
        If the slide is larger than the cache, or the folder cannot be used.
    """
    slide, settings = load_info(info, location), CacheSettings.of_slides(slides)
    if not _is_copied(slide.path, settings):
        with inspected_slide(location):
            yield slide
        return
    with _copy(slide.path, _present_state(slide.path, settings), settings) as (path, digest):
        if digest != slide.identity:
            raise ChangedSlideError(
                stage=STAGE,
                finding=f"{slide.path} has changed since its inspection: its digest is {digest}, not {slide.identity}",
                remedy="run again; if the slide has changed, it is inspected again",
            )
        with _named(path, slide.path):
            yield replace(slide, path=path)


@contextmanager
def inspected_slide(location: str | Path) -> Iterator[None]:
    """See before and after the block that a slide is the one that was inspected.

    Raises
    ------
    ChangedSlideError
        If it is not.
    """
    seen = read_json(location)
    check_unchanged(**seen)
    yield
    check_unchanged(**seen)


@contextmanager
def cached_file(path: str, settings: CacheSettings) -> Iterator[str]:
    """Like :func:`cached_slide`, for a slide file before its inspection; only remote files are copied."""
    if not is_remote(path):
        yield path
        return
    with _copy(path, _present_state(path, settings), settings) as (copy, _), _named(copy, path):
        yield copy


def _is_copied(path: str, settings: CacheSettings) -> bool:
    return is_remote(path) or (settings.of != REMOTE and Path(path).is_file())


def _present_state(path: str, settings: CacheSettings) -> str:
    """Size in bytes, and what identifies this version of the file (an ETag or modification times)."""
    if is_remote(path):
        from lesionmap.servers import remote  # its libraries are loaded only if a slide is remote

        found = remote.state(path, settings.roots)
        if why := why_unavailable(found):
            finding, remedy = why
            raise RemoteError(stage=STAGE, finding=finding, remedy=f"{remedy}, and run again")
        return found
    size = sum(part.stat().st_size for part in slide_parts(Path(path)) if part.exists())
    return f"{size} {slide_state(path)}"


@contextmanager
def _named(copy: str, path: str) -> Iterator[None]:
    """Make errors name the slide's own path, not its copy's."""
    try:
        yield
    except LesionMapError as error:
        finding = error.finding.replace(copy, path)
        raise type(error)(stage=error.stage, finding=finding, remedy=error.remedy, slide=error.slide) from error


@contextmanager
def _copy(path: str, found: str, settings: CacheSettings) -> Iterator[tuple[str, str]]:
    """Give a copy's path and content digest; the copy is not removed during the block."""
    cache = SlideCache(_folder(settings), int(settings.most_gb * 1e9))
    key, size = hashlib.sha256(f"{path} {found}".encode()).hexdigest()[:16], n_bytes(found)
    if size > cache.most_bytes:
        raise SettingsError(
            stage=STAGE,
            finding=f"{path} has {size / 1e9:.3g} GB, and slides.copies.most_gb is {settings.most_gb:g}",
            remedy="raise slides.copies.most_gb",
        )
    with cache.entry(f"{key}-{size}", lambda place: _fill(place, path, size, settings)) as entry:
        yield str(entry / "slide" / file_name(path)), (entry / DIGEST).read_text(encoding="utf-8")


def _folder(settings: CacheSettings) -> Path:
    folder = os.path.expandvars(settings.folder)
    if "$" in folder:
        raise SettingsError(
            stage=STAGE,
            finding=f"slides.copies.folder is {settings.folder}, and this machine does not have that variable",
            remedy="set it there, or name a folder that all machines have",
        )
    return Path(folder)


def _fill(place: Path, path: str, size: int, settings: CacheSettings) -> None:
    """Copy all files of a slide, and note their digest."""
    start, inside = time.monotonic(), place / "slide"
    shutil.rmtree(inside, ignore_errors=True)  # left by a killed job
    inside.mkdir()
    if is_remote(path):
        from lesionmap.servers import remote

        remote.download(path, inside / file_name(path), size, settings.roots)
    else:
        for part in filter(Path.exists, slide_parts(Path(path))):
            target = inside / part.relative_to(Path(path).parent)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(part, target)
    logging.info("%s copied: %.1f MB in %.1f s", path, size / 1e6, time.monotonic() - start)
    write_text(place / DIGEST, content_digest(inside / file_name(path)))


def copies_of(digest: str, folder: str) -> dict[Path, int]:
    """Complete copies of one slide, by its content digest, and their bytes; none on a machine without the folder."""
    places = [place for place in Path(os.path.expandvars(folder)).glob("*/") if ENTRY.fullmatch(place.name)]
    noted = [place for place in places if (place / DIGEST).exists()]
    return {place: _size(place) for place in noted if (place / DIGEST).read_text(encoding="utf-8") == digest}


def remove_copy(place: Path) -> None:
    """Remove a copy; one that a job is reading stays, and goes by itself when room is needed."""
    SlideCache(place.parent, 0).remove(place)


@dataclass(frozen=True)
class SlideCache:
    """A folder of copies that jobs share, also across machines.

    A job that needs a copy holds a lock on it (flock). The lock ends with the job, however the job ends. Copies that
    are not locked may be removed. Entries are checked, created and removed under a lock on the whole folder, which
    is never held for long.

    Parameters
    ----------
    folder : Path
        Created on first use.
    most_bytes : int
        Size limit for all entries together. Each entry has its size in its name.
    """

    folder: Path
    most_bytes: int

    @contextmanager
    def entry(self, name: str, fill: Callable[[Path], None]) -> Iterator[Path]:
        """Give an entry filled by `fill`, now or by an earlier job; wait for a job that is filling it, and for room."""
        place, waited = self.folder / name, False
        while True:
            lock = self._claim(place)
            if not lock:
                if not waited:
                    logging.info("waiting for room in %s, or for a job that fetches the same slide", self.folder)
                waited = True
                time.sleep(POLL_SECONDS)
                continue
            with lock:
                if (place / DIGEST).exists():
                    yield place
                    return
                self._fill_or_remove(place, fill)

    def _fill_or_remove(self, place: Path, fill: Callable[[Path], None]) -> None:
        try:
            fill(place)
        except BaseException:
            with self._alone():
                shutil.rmtree(place)
            raise

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other job checks, creates or removes entries during the block."""
        with open(self.folder / LOCK, "w", encoding="utf-8") as whole:
            _lock(whole, fcntl.LOCK_EX)
            yield

    def _claim(self, place: Path) -> IO[str] | None:
        """Lock an entry: shared if it is complete, else exclusive, to fill it. None if that is not possible now."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._alone():
            if not place.exists() and not self._make_room(_size(place)):
                return None
            place.mkdir(exist_ok=True)
            lock = open(place / LOCK, "w", encoding="utf-8")  # noqa: SIM115 # the caller closes it; mtime: last use
            if _lock(lock, fcntl.LOCK_NB | (fcntl.LOCK_SH if (place / DIGEST).exists() else fcntl.LOCK_EX)):
                return lock
            lock.close()
            return None

    def _make_room(self, n_bytes: int) -> bool:
        """Remove unlocked entries, least recently used first, until `n_bytes` more fit; return whether they do."""
        places = [place for place in self.folder.iterdir() if ENTRY.fullmatch(place.name)]
        taken = sum(map(_size, places))
        for place in sorted(places, key=_last_use):
            if taken + n_bytes <= self.most_bytes:
                break
            if _removed(place):
                taken -= _size(place)
        return taken + n_bytes <= self.most_bytes

    def remove(self, place: Path) -> None:
        """Remove an entry, unless a job is using it."""
        with self._alone():
            _removed(place)


def _removed(place: Path) -> bool:
    """Remove an unlocked entry; False if a job is using it."""
    with open(place / LOCK, "a", encoding="utf-8") as lock:
        if unlocked := _lock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB):
            shutil.rmtree(place)
    return unlocked


def _size(place: Path) -> int:
    return int(place.name.partition("-")[2])


def _last_use(place: Path) -> float:
    return (place / LOCK).stat().st_mtime if (place / LOCK).exists() else 0.0


def _lock(stream: IO[str], how: int) -> bool:
    """Lock a file; False if another job holds the lock.

    Raises
    ------
    SettingsError
        If the file system does not support locks.
    """
    try:
        fcntl.flock(stream, how)
    except BlockingIOError:
        return False
    except OSError as error:
        raise SettingsError(
            stage=STAGE,
            finding=f"{stream.name} cannot be locked ({error.strerror}); its file system does not support locks",
            remedy="set slides.copies.folder to a folder on a disk of the machine itself, e.g. $TMPDIR",
        ) from error
    return True
