"""The report's page about the stains of all slides."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from lesionmap.files.records import read_json
from lesionmap.formatting import MISSING
from lesionmap.plotting import BLUE, VERMILION, save_svg
from lesionmap.report.inputs import ReportInputs
from lesionmap.report.slides import SlideReport
from lesionmap.stain.plots import directions, draw_stains
from lesionmap.stain.profile import STAINS, StainProfile

MOST_FLAGGED_STAINS_LISTED = 100
MOST_STAINS_LABELLED = 20
MOST_VECTORS = 1000  # drawn as shapes; more are drawn as pixels, as the SVG would open slowly
FARTHEST_DIRECTION = (1.6, 1.2)  # stains farther away are drawn at this limit


def stain_colour(row: Sequence[float], concentration: float) -> str:
    """CSS colour of one stain at a concentration; `row` is the stain's optical density in R, G, B."""
    return "rgb({}, {}, {})".format(*(round(255 * math.exp(-concentration * part)) for part in row))


def draw_stain_vectors(slides: Sequence[SlideReport], path: Path) -> None:
    """Draw the stain vectors of all slides and of the reference as SVG; equal slides give equal bytes.

    Parameters
    ----------
    slides : sequence of SlideReport
        At least one. The farthest from the reference are labelled, and a line joins their two stains.
    """
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    fitted = np.array([_fitted_directions(slide) for slide in slides])  # (slides, 2 stains, 2)
    for points, stain, colour in zip(fitted.swapaxes(0, 1), STAINS, (BLUE, VERMILION), strict=True):
        x, y = points.T
        dots = axes.scatter(x, y, s=18, color=colour, alpha=0.7, linewidths=0, label=f"{stain}, slides")
        dots.set_rasterized(len(slides) > MOST_VECTORS)
    for slide in _flagged_stains(slides)[:MOST_STAINS_LABELLED]:
        _label_stains(axes, slide)
    reference = StainProfile.of(slides[0].stain["reference"])
    draw_stains(axes, reference, "reference", marker="s", hollow=True)
    for square in axes.lines[-2:]:
        square.set_path_effects([withStroke(linewidth=2.5, foreground="white")])  # visible among thousands of dots
    figure.legend(frameon=False, loc="outside upper center", ncols=4)
    save_svg(figure, path)


def _label_stains(axes: Axes, slide: SlideReport) -> None:
    haematoxylin, eosin = _fitted_directions(slide)
    axes.plot(*zip(haematoxylin, eosin, strict=True), color="0.7", linewidth=0.8, zorder=1)
    label = axes.annotate(slide.slide, haematoxylin, (4, 4), textcoords="offset points", fontsize="x-small")
    label.set_parse_math(False)


def _fitted_directions(slide: SlideReport) -> NDArray[np.float64]:
    """Directions of the slide's own stains, (2, 2); directions too far away for tissue are moved to the plot's edge."""
    own = "profile" if slide.stain["fitted"]["verdict"] == "ok" else "fitted"  # a usable profile has its stains sorted
    return np.minimum(directions(np.array(slide.stain[own]["basis"])), FARTHEST_DIRECTION)


def _flagged_stains(slides: Sequence[SlideReport]) -> list[SlideReport]:
    """The slides whose stain is flagged, the farthest from the reference first."""
    found = [slide for slide in slides if slide.stain_flags]
    return sorted(found, key=lambda slide: slide.stain_sort_key, reverse=True)


def stain_content(inputs: ReportInputs, slides: list[SlideReport]) -> dict[str, Any]:
    """Content of the stain page, besides what all pages share."""
    flagged = _flagged_stains(slides)
    return {
        "slides": slides,
        "reference": slides[0].stain["reference_slide"] if slides else MISSING,
        "spread": read_json(inputs.stain_spread),
        "flagged": flagged[:MOST_FLAGGED_STAINS_LISTED],
        "flagged_left_out": len(flagged[MOST_FLAGGED_STAINS_LISTED:]),
        "labelled": min(len(flagged), MOST_STAINS_LABELLED),
    }
