"""Copies of slides on a near disk, for as long as there is room: of remote ones, and of any others if asked for."""

import fcntl
import hashlib
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from lesionmap.errors import LesionMapError, RemoteError, SettingsError
from lesionmap.files.records import write_text
from lesionmap.slides.file_checks import content_digest, slide_parts
from lesionmap.slides.slide import SlideInfo, load_info
from lesionmap.slides.urls import file_name, is_remote, n_bytes, why_unavailable

STAGE = "fetch"
REMOTE = "remote"
ENTRY = re.compile(r"[0-9a-f]{16}-\d+")  # key and size in bytes; nothing else in the folder is ever removed
DIGEST, LOCK = "digest.txt", "lock"  # an entry without digest is not whole
SECONDS_BETWEEN_LOOKS = 1


@dataclass(frozen=True)
class CacheSettings:
    """Which slides are copied before they are read, and where to.

    Parameters
    ----------
    of : str
        ``remote``: those that lie on a server; ``all``: every slide.
    folder : str
        Environment variables in it are filled in by the machine that reads the slide.
    most_gb : float
        What all copies in it may take; the ones that nobody has used for longest make room.
    """

    of: str
    folder: str
    most_gb: float


IN_PLACE = CacheSettings(REMOTE, "slide_copies", 0)


@contextmanager
def cached_slide(record: str, copies: Mapping[str, Any]) -> Iterator[SlideInfo]:
    """A slide as it can be read in the block: where it is, or in its copy.

    Parameters
    ----------
    record : str
        What its inspection wrote.
    copies : mapping
        The config's ``slides.copies``.

    Raises
    ------
    SlideError
        The inspection's own, if it refused the slide.
    RemoteError
        If it cannot be fetched, or is no longer what was inspected.
    SettingsError
        If there is no room for it.
    """
    info, settings = load_info(record), CacheSettings(**copies)
    if not _is_copied(info.path, settings):
        yield info
        return
    with _copy(info.path, _present_state(info.path), settings) as (path, digest):
        if digest != info.identity:
            raise RemoteError(
                stage=STAGE,
                finding=f"{info.path} is not what was inspected: its digest is {digest}, not {info.identity}",
                remedy="run again; where the slide has changed it is inspected anew",
            )
        with _named(path, info.path):
            yield replace(info, path=path)


@contextmanager
def cached_file(path: str, settings: CacheSettings) -> Iterator[str]:
    """The same, of the file of a slide that has not been inspected; only what is remote is copied for that."""
    if not is_remote(path):
        yield path
        return
    with _copy(path, _present_state(path), settings) as (copy, _), _named(copy, path):
        yield copy


def _is_copied(path: str, settings: CacheSettings) -> bool:
    return is_remote(path) or (settings.of != REMOTE and Path(path).is_file())


def _present_state(path: str) -> str:
    """Size in bytes, and what tells this version of the file from others."""
    if is_remote(path):
        from lesionmap.slides import remote  # where no slide is, its libraries need not be loaded

        found = remote.state(path)
        if why := why_unavailable(found):
            raise RemoteError(stage=STAGE, finding=why, remedy="run again; a slide that is gone goes into quarantine")
        return found
    stats = [part.stat() for part in slide_parts(Path(path))]
    return f"{sum(stat.st_size for stat in stats)} {[stat.st_mtime_ns for stat in stats]}"


@contextmanager
def _named(copy: str, path: str) -> Iterator[None]:
    """Have errors name the slide's own place, not its copy's."""
    try:
        yield
    except LesionMapError as error:
        finding = error.finding.replace(copy, path)
        raise type(error)(stage=error.stage, finding=finding, remedy=error.remedy, slide=error.slide) from error


@contextmanager
def _copy(path: str, found: str, settings: CacheSettings) -> Iterator[tuple[str, str]]:
    """A copy and the digest of its content, kept from being removed in the block."""
    cache = SlideCache(_folder(settings), int(settings.most_gb * 1e9))
    key, size = hashlib.sha256(f"{path} {found}".encode()).hexdigest()[:16], n_bytes(found)
    if size > cache.most_bytes:
        raise SettingsError(
            stage=STAGE,
            finding=f"{path} has {size / 1e9:.3g} GB, and slides.copies.most_gb is {settings.most_gb:g}",
            remedy="raise slides.copies.most_gb",
        )
    with cache.entry(f"{key}-{size}", lambda place: _fill(place, path, size)) as entry:
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


def _fill(place: Path, path: str, size: int) -> None:
    """Copy all files of a slide, and note their digest."""
    start, inside = time.monotonic(), place / "slide"
    shutil.rmtree(inside, ignore_errors=True)  # of a job that was killed
    inside.mkdir()
    if is_remote(path):
        from lesionmap.slides import remote

        remote.download(path, inside / file_name(path), size)
    else:
        for part in slide_parts(Path(path)):
            target = inside / part.relative_to(Path(path).parent)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(part, target)
    logging.info("%s copied: %.1f MB in %.1f s", path, size / 1e6, time.monotonic() - start)
    write_text(place / DIGEST, content_digest(inside / file_name(path)))


@dataclass(frozen=True)
class SlideCache:
    """A folder of copies that jobs share, also jobs of several machines.

    A job in need of a copy holds a lock on it (flock), which ends with the job however that ends. What is not locked
    may be removed. Entries are looked at, made and removed under the lock of the whole folder, never held for long.

    Parameters
    ----------
    folder : Path
    most_bytes : int
        What its entries may have together; each has its size in its name.
    """

    folder: Path
    most_bytes: int

    @contextmanager
    def entry(self, name: str, fill: Callable[[Path], None]) -> Iterator[Path]:
        """An entry that `fill` has filled, now or for a job before; waits for a job that is at it, and for room."""
        place, waited = self.folder / name, False
        while True:
            lock = self._claim(place)
            if not lock:
                if not waited:
                    logging.info("waiting for room in %s, or for a job that fetches the same slide", self.folder)
                waited = True
                time.sleep(SECONDS_BETWEEN_LOOKS)
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
        """No other looks at, makes or removes entries in the block."""
        with open(self.folder / LOCK, "w", encoding="utf-8") as whole:
            _lock(whole, fcntl.LOCK_EX)
            yield

    def _claim(self, place: Path) -> IO[str] | None:
        """A lock on an entry: with others if it is whole, else alone, to fill it. None if it is not to be had now."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._alone():
            if not place.exists() and not self._make_room(_size(place)):
                return None
            place.mkdir(exist_ok=True)
            lock = open(place / LOCK, "w", encoding="utf-8")  # noqa: SIM115 # held by the caller; its time tells the last use
            if _lock(lock, fcntl.LOCK_NB | (fcntl.LOCK_SH if (place / DIGEST).exists() else fcntl.LOCK_EX)):
                return lock
            lock.close()
            return None

    def _make_room(self, n_bytes: int) -> bool:
        """Remove what nobody uses, the least recently used first, until so much fits; whether it does."""
        places = [place for place in self.folder.iterdir() if ENTRY.fullmatch(place.name)]
        taken = sum(map(_size, places))
        for place in sorted(places, key=_last_use):
            if taken + n_bytes <= self.most_bytes:
                break
            with open(place / LOCK, "a", encoding="utf-8") as lock:
                if _lock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB):
                    shutil.rmtree(place)
                    taken -= _size(place)
        return taken + n_bytes <= self.most_bytes


def _size(place: Path) -> int:
    return int(place.name.partition("-")[2])


def _last_use(place: Path) -> float:
    return (place / LOCK).stat().st_mtime if (place / LOCK).exists() else 0.0


def _lock(stream: IO[str], how: int) -> bool:
    """Whether the file is locked now; False if another has it.

    Raises
    ------
    SettingsError
        If its file system knows no locks.
    """
    try:
        fcntl.flock(stream, how)
    except BlockingIOError:
        return False
    except OSError as error:
        raise SettingsError(
            stage=STAGE,
            finding=f"{stream.name} cannot be locked ({error.strerror}); its file system is not made for that",
            remedy="set slides.copies.folder to a folder on a disk of the machine itself, e.g. $TMPDIR",
        ) from error
    return True
