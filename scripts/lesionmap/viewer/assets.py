"""The viewer's files and colours that all slide pages share: Leaflet, and our code around it."""

import shutil
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray

from lesionmap.files.records import write_text

TEMPLATES = Path(__file__).parent / "templates/assets"
SCRIPTS = (  # ours, in the order in which they run
    *("viewer_tiles.js", "viewer_stain.js", "viewer_outlines.js", "viewer_selection.js"),
    *("viewer_tools.js", "viewer_export.js", "viewer.js"),
)
SCRIPT, STYLE = "viewer.js", "viewer.css"
LEAFLET = ("leaflet.js", "leaflet.css")
BOTH_WAYS = 0.25  # of a grey value: some browsers round the values of a table, others truncate them
COLOURS = "viridis"  # safe for colour-blind readers, and visible on pink and purple


def write_viewer(folder: Path) -> None:
    """Write the viewer's scripts and styles into a folder; ours is one script, which loads sooner than several."""
    with as_file(files("xstatic.pkg.leaflet") / "data") as leaflet:
        for path in (*(leaflet / name for name in LEAFLET), TEMPLATES / STYLE):
            shutil.copyfile(path, folder / path.name)
    write_text(folder / SCRIPT, "".join((TEMPLATES / name).read_text(encoding="utf-8") for name in SCRIPTS))


def colour_tables() -> dict[str, str]:
    """The colour of each probability × 255: red, green and blue, 0–1, as tables of an SVG filter."""
    columns = (_colours(256) + BOTH_WAYS).clip(0, 255).T / 255
    return {channel: " ".join(f"{part:.5g}" for part in column) for channel, column in zip("RGB", columns, strict=True)}


def colour_stops() -> str:
    """The same colours as the stops of a CSS gradient."""
    return ", ".join("rgb({:.0f} {:.0f} {:.0f})".format(*colour) for colour in _colours(9))


def _colours(n: int) -> NDArray[np.float64]:
    """Colours of `n` probabilities from 0 to 1, (n, 3), whole numbers from 0 to 255."""
    return np.round(colormaps[COLOURS](np.linspace(0, 1, n))[:, :3] * 255)
