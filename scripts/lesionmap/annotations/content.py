"""What a reader makes of an annotation file: its outlines, and counts of what it left out or repaired.

Coordinates are continuous level-0 pixels: pixel i covers [i, i + 1), so its centre is i + 0.5.
"""

import gzip
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from lesionmap.errors import AnnotationError

STAGE = "import_annotation"
FEWEST_POINTS = 3
LARGEST_COORDINATE = 1e9  # far more than any slide has; areas of larger outlines overflow
GZIP_MAGIC = b"\x1f\x8b"
Ring = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class AnnotatedOutline:
    """One outline as read from its file.

    Parameters
    ----------
    name : str
        Class name in the file; empty if there is none.
    geometry : BaseGeometry
        In level-0 pixels; may cross itself.
    cuts : bool
        Whether it is a hole in the other outlines of its class.
    origin : str
        What a review made of it (:mod:`lesionmap.annotations.corrections`); empty for one of another origin.
    siblings : int
        How many predicted outlines a review has sent out with it, and it among them; 0 for other outlines.
    """

    name: str
    geometry: BaseGeometry
    cuts: bool = False
    origin: str = ""
    siblings: int = 0


@dataclass
class AnnotationFile:
    """All outlines of one file, and counts of what was left out or repaired while reading.

    Parameters
    ----------
    format : str
        Name of the file format, such as "ASAP XML".
    ignored : Counter
        Number of objects left out (dots, rulers, detections …), by kind.
    repaired : Counter
        Number of defects repaired, by kind.
    mask_scale : (float, float) or None
        Level-0 pixels per mask pixel along x and y, for masks.
    """

    format: str
    outlines: list[AnnotatedOutline] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    repaired: Counter[str] = field(default_factory=Counter)
    mask_scale: tuple[float, float] | None = None

    def add(self, name: str, ring: Ring, *, cuts: bool = False) -> None:
        """Add the closed outline through the points of `ring`; if there are too few, count it as dropped."""
        if len(set(ring)) < FEWEST_POINTS:
            self.repaired["fewer than 3 points, dropped"] += 1
        else:
            self.outlines.append(AnnotatedOutline(name, Polygon(ring), cuts))


class ForeignFileError(ValueError):
    """The file is another program's, or of a kind that is not read; `remedy` says what to do with it."""

    def __init__(self, what: str, remedy: str) -> None:
        self.remedy = remedy
        super().__init__(what)


def refusal(slide: str, finding: str, remedy: str) -> AnnotationError:
    """Make an error about one slide's annotation."""
    return AnnotationError(slide=slide, stage=STAGE, finding=finding, remedy=remedy)


def file_bytes(source: str) -> bytes:
    """Content of a file, unpacked if it is a gzip file, whatever its name."""
    content = Path(source).read_bytes()
    return gzip.decompress(content) if content.startswith(GZIP_MAGIC) else content


def coordinate(value: str | float) -> float:
    """A coordinate as a number; raises ValueError if it is none, NaN or absurdly large."""
    number = float(value)
    if not abs(number) <= LARGEST_COORDINATE:  # also refuses NaN
        raise ValueError(f"the coordinate {number:g} is not a number between ±{LARGEST_COORDINATE:g}")
    return number
