"""Write files and folders whole or not at all: each is written beside its target, then renamed."""

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

from lesionmap.files.disk_errors import naming_disk_errors


@contextmanager
def written_whole(target: str | Path) -> Iterator[Path]:
    """Give a path beside `target` to write to; rename it to `target` if the block succeeds.

    A killed or failing writer leaves no partial file that a later stage could mistake for a whole one. The next
    writer of the same target on the same host removes the draft of a killed writer.

    Raises
    ------
    StorageError
        If the disk is full or cannot be written to. The free space it names was measured before the draft was removed.
    """
    target = Path(target)
    prefix = f".{target.stem}.{socket.gethostname()}-"
    draft = target.with_name(f"{prefix}{os.getpid()}{target.suffix}")
    try:
        with naming_disk_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            for left in target.parent.glob(f"{escape(prefix)}*{escape(target.suffix)}"):
                if not _is_running(left.name.removeprefix(prefix).removesuffix(target.suffix)):
                    left.unlink(missing_ok=True)
            mode = _usual_mode(draft)
            yield draft
            if draft.stat().st_mode != mode:  # safetensors and others that use temporary files keep others out
                draft.chmod(mode)
            os.replace(draft, target)
    finally:
        with suppress(OSError):  # the draft may not exist
            draft.unlink()


def _usual_mode(path: Path) -> int:
    """Mode of a new file: that of the umask, or of the folder's access list."""
    path.touch()
    mode = path.stat().st_mode
    path.unlink()
    return mode


def _is_running(process_id: str) -> bool:
    try:
        os.kill(int(process_id), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        pass  # it runs as another user
    return True


@contextmanager
def folder_written_whole(target: str | Path) -> Iterator[Path]:
    """Give an empty folder beside `target` to fill; replace `target` by it if the block succeeds.

    The next writer of the same target removes what a killed writer left. Snakemake runs only one writer at a time.

    Raises
    ------
    StorageError
        If the disk is full or cannot be written to. The free space it names was measured before the draft was removed.
    """
    target = Path(target)
    draft = target.with_name(f".{target.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        with naming_disk_errors(target):
            draft.mkdir(parents=True)
            yield draft
            shutil.rmtree(target, ignore_errors=True)
            os.replace(draft, target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
