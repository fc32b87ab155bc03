"""Plot a stain normalisation: tissue before and after, and the stain vectors. No result depends on these plots."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lesionmap.files.atomic import written_whole
from lesionmap.files.pictures import read_png, write_png
from lesionmap.files.records import read_json
from lesionmap.plotting import BLUE, VERMILION
from lesionmap.stain.fit import read_sample
from lesionmap.stain.profile import OD_FLOOR, STAINS, StainProfile, optical_density, palette
from lesionmap.stain.table import StainMatch, apply_table

DRAWN_PIXELS = 20_000


@dataclass(frozen=True)
class PlotFiles:
    """Input paths: a slide's match, the PNG files of its fit, and tissue of the reference (None: no picture)."""

    match: str
    sample: str
    tissue: str
    overview: str
    reference_tissue: str | None = None


def draw_stain(files: PlotFiles, picture: str, thumbnails: str) -> None:
    """Plot how one slide is normalised.

    Parameters
    ----------
    picture : str
        PNG: tissue before and after, tissue of the reference (or its palette, if there is no picture), and the stain
        vectors.
    thumbnails : str
        PNG: the whole slide before and after.
    """
    match = StainMatch.of(read_json(files.match))
    table, tissue, overview = match.table(), read_png(files.tissue), read_png(files.overview)
    pixels = read_sample(files.sample, match.profile.n_pixels)
    reference = read_png(files.reference_tissue) if files.reference_tissue else palette(match.reference)
    draw_match(picture, (tissue, apply_table(table, tissue), reference), pixels, match)
    write_png(thumbnails, np.concatenate([overview, apply_table(table, overview)], axis=1))


def draw_match(path: str, tissue: Sequence[NDArray[np.uint8]], pixels: NDArray[np.uint8], match: StainMatch) -> None:
    """Plot tissue of a slide before and after normalisation, tissue of the reference, and the stain vectors.

    Parameters
    ----------
    path : str
        PNG.
    tissue : three (H, W, 3) uint8
        Before, after, reference.
    pixels : (N, 3) uint8
        Tissue pixels of the slide, for the scatter plot.
    """
    figure = Figure(figsize=(17, 4.6), dpi=100, layout="constrained")
    *pictures, chart = figure.subplots(1, 4)
    white = ", ".join(f"{part:.0f}" for part in match.profile.white_point)
    titles = (f"before (glass {white})", "after", "reference")
    for axes, image, title in zip(pictures, tissue, titles, strict=True):
        axes.imshow(image)
        axes.set_title(title)
        axes.set_axis_off()
    drawn = pixels[:: max(1, len(pixels) // DRAWN_PIXELS)]
    dots = directions(optical_density(drawn, match.profile.white_point))
    chart.scatter(*dots.T, s=2, color="0.75", linewidths=0, zorder=1)
    draw_stains(chart, match.profile, "slide", marker="o")
    draw_stains(chart, match.reference, "reference", marker="s", hollow=True)
    _frame(
        chart, np.concatenate([dots, *(directions(np.array(one.basis)) for one in (match.profile, match.reference))])
    )
    chart.legend(frameon=False, fontsize="small", loc="upper right")
    chart.set_title("stain vectors and tissue pixels")
    with written_whole(path) as draft:
        figure.savefig(draft, format="png", metadata={"Software": None})


def _frame(chart: Axes, points: NDArray[np.float64]) -> None:
    """Set the axis limits: percentiles 1 to 99 of `points` (N, 2), and its last four (the stain vectors) in any case.

    Some room is added for the legend.
    """
    low, high = np.percentile(points, [1, 99], axis=0)
    low, high = np.minimum(low, points[-4:].min(axis=0)), np.maximum(high, points[-4:].max(axis=0))
    margin = 0.05 + 0.1 * (high - low)
    chart.set(xlim=(low[0] - margin[0], high[0] + margin[0]), ylim=(low[1] - margin[1], high[1] + 5 * margin[1]))


def directions(od: NDArray[np.float64]) -> NDArray[np.float64]:
    """Red/green and blue/green of optical densities (N, 3), (N, 2). Mixtures of two stains lie on the line between."""
    return od[:, [0, 2]] / np.maximum(od[:, [1]], OD_FLOOR)


def draw_stains(axes: Axes, profile: StainProfile, label: str, *, marker: str, hollow: bool = False) -> None:
    """Draw the two stain vectors of a profile as points, and the line of their mixtures."""
    points = directions(np.array(profile.basis))
    axes.plot(*points.T, color="0.3", linewidth=1, linestyle="--" if hollow else "-", zorder=2)
    for point, stain, colour in zip(points, STAINS, (BLUE, VERMILION), strict=True):
        face = "none" if hollow else colour
        axes.plot(*point, marker, color=colour, markerfacecolor=face, label=f"{stain}, {label}", zorder=3)
    axes.set(xlabel="red OD ÷ green OD", ylabel="blue OD ÷ green OD")
