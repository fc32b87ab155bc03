"""What all plots share: colours, and SVG files that are identical for identical plots."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

# Okabe & Ito 2008: safe for colour-blind readers
BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"


def save_svg(figure: Figure, path: str | Path) -> None:
    """Save as SVG; identical figures give identical bytes."""
    with mpl.rc_context({"svg.hashsalt": "lesionmap"}):
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
