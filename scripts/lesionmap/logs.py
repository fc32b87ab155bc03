"""What a job says: to its log file, and in one line to the terminal when it fails."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from lesionmap.errors import LesionMapError


@contextmanager
def job_log(path: str) -> Iterator[None]:
    """Send log records to `path`; turn a :class:`LesionMapError` into one clear line and exit status 1.

    Any other exception keeps its traceback, in the log and on the terminal: it is our fault, not the user's.
    """
    logging.basicConfig(filename=path, filemode="w", level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.captureWarnings(True)
    try:
        yield
    except LesionMapError as error:
        logging.error("%s", error)
        sys.exit(f"LesionMap: {error}")
    except Exception:
        logging.exception("unexpected error")
        raise
