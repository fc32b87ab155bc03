"""Tissue detection against boxes drawn by eye on real slides, and against other rules and packages, in one run.

``make bench-tissue`` runs it; the README beside it says what the boxes show and how each method is run.
"""

import json
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import yaml
from lesionmap.geometry.tiling import map_size
from lesionmap.slides.slide import Slide, SlideInfo
from lesionmap.tissue.detection import TissueSettings, tissue_map
from lesionmap.tissue.mask import FOLD, TISSUE
from numpy.typing import NDArray
from slide_infos import slide_info

DATA = Path("../shared/data")
BOXES, CONFIG = Path("benchmarks/tissue_boxes.geojson"), Path("config/config.yaml")
CLASSES = ("tissue", "fat", "fold", "glass", "ink")
RESOLUTIONS = (6.0, 7.0, 8.0, 10.0, 12.0)  # of ours, µm/px; the others' own resolution changes by the same factors
DEFAULT = 8.0
CLAM_MPP = 16.0  # its level: downsample 64 of 0.25 µm/px
CLAM_UNIT_UM = 128.0  # its areas are in squares of 512 px of level 0, here of 0.25 µm/px

Mask = NDArray[np.bool_]
Method = Callable[[SlideInfo, float], Mask]


class Box(NamedTuple):
    """A rectangle in level-0 pixels, in which everything is of one class."""

    label: str
    left: int
    top: int
    right: int
    bottom: int


class Case(NamedTuple):
    """A slide and its boxes."""

    info: SlideInfo
    boxes: Sequence[Box]


class Findings(NamedTuple):
    """What a method found: the share of tissue in each box and on each whole slide, and its mean CPU seconds."""

    in_boxes: dict[str, list[tuple[str, float]]]  # slide → (class, share) of each box
    on_slide: dict[str, list[float]]  # slide → share at each of RESOLUTIONS; one share if the method has none
    seconds: float

    def mean(self, label: str, *slides: str) -> float:
        """Mean share of tissue in the boxes of a class, of these slides or all; NaN without boxes."""
        shares = [share for name in slides or self.in_boxes for found, share in self.in_boxes[name] if found == label]
        return float(np.mean(shares)) if shares else float("nan")

    def stability(self) -> float:
        """Largest relative deviation of a slide's share of tissue from that at the default resolution."""
        shares = np.array([shares for shares in self.on_slide.values() if len(shares) == len(RESOLUTIONS)])
        if not shares.size:
            return float("nan")
        usual = shares[:, [RESOLUTIONS.index(DEFAULT)]]
        return float(np.abs(shares / usual - 1)[usual[:, 0] > 0].max(initial=0))


class ClamRule(NamedTuple):
    """Parameters of CLAM's rule (Lu et al., Nat Biomed Eng 2021), named as in its presets; its defaults."""

    otsu: bool = False
    sthresh: int = 8
    mthresh: int = 7
    close: int = 4
    a_t: float = 100
    a_h: float = 16
    max_n_holes: int = 8


def overview(info: SlideInfo, mpp: float) -> tuple[NDArray[np.uint8], Mask]:
    """The whole slide, and which of its pixels could be read."""
    with Slide(info, "benchmark") as slide:
        return slide.read_where_possible((0, 0), map_size(info.size_lv0, mpp / info.mpp), mpp)


def ours(settings: TissueSettings, info: SlideInfo, factor: float) -> Mask:
    """What rule `find_tissue` does, without writing the map."""
    settings = replace(settings, mpp=settings.mpp * factor)
    image, found = overview(info, settings.mpp)
    codes = tissue_map(image, settings)
    codes[~found] = TISSUE
    return codes >= FOLD


def clam(rule: ClamRule, info: SlideInfo, factor: float) -> Mask:
    """Saturated pixels, closed; small pieces dropped, all but the largest holes filled."""
    mpp = CLAM_MPP * factor
    saturation = cv2.cvtColor(overview(info, mpp)[0], cv2.COLOR_RGB2HSV)[..., 1]
    kind = cv2.THRESH_BINARY | (cv2.THRESH_OTSU if rule.otsu else 0)
    _, coloured = cv2.threshold(cv2.medianBlur(saturation, rule.mthresh), rule.sthresh, 1, kind)
    closed = cv2.morphologyEx(coloured, cv2.MORPH_CLOSE, np.ones((rule.close, rule.close), np.uint8))
    outlines, tree = cv2.findContours(closed, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    unit_px = (CLAM_UNIT_UM / mpp) ** 2
    areas = [cv2.contourArea(outline) for outline in outlines]
    mask = np.zeros_like(closed)
    # A piece within a hole of another is smaller, so it is drawn later.
    for piece in sorted(range(len(outlines)), key=lambda index: -areas[index]):
        holes = [hole for hole in range(len(outlines)) if tree[0, hole, 3] == piece]
        if tree[0, piece, 3] >= 0 or areas[piece] - sum(areas[hole] for hole in holes) <= rule.a_t * unit_px:
            continue
        largest = sorted(holes, key=lambda index: -areas[index])[: rule.max_n_holes]
        left = [outlines[hole] for hole in largest if areas[hole] > rule.a_h * unit_px]
        cv2.drawContours(mask, outlines, piece, 1, cv2.FILLED)
        cv2.drawContours(mask, left, -1, 0, cv2.FILLED)
        cv2.drawContours(mask, left, -1, 1)  # a hole's outline lies on the tissue around it
    return mask.astype(bool)


def tiatoolbox(method: str, info: SlideInfo, factor: float) -> Mask:
    """Its reader's own tissue mask, at 8 µm/px: its default, 1.25×."""
    from tiatoolbox.wsicore.wsireader import OpenSlideWSIReader

    reader = OpenSlideWSIReader(info.path, mpp=(info.mpp, info.mpp), power=10 / info.mpp)
    return reader.tissue_mask(method, resolution=DEFAULT * factor, units="mpp").img.astype(bool)


def histolab(info: SlideInfo, factor: float) -> Mask:
    """Its tissue mask; it takes no resolution."""
    from histolab.masks import TissueMask as HistolabMask
    from histolab.slide import Slide as HistolabSlide

    with tempfile.TemporaryDirectory() as folder:
        return np.asarray(HistolabMask()(HistolabSlide(info.path, folder)), bool)


def methods() -> dict[str, tuple[Method, Sequence[float]]]:
    """Name → the method and the factors by which its resolution is changed."""
    settings = TissueSettings(**yaml.safe_load(CONFIG.read_text())["tissue"])
    factors = [mpp / DEFAULT for mpp in RESOLUTIONS]
    return {
        "LesionMap": (partial(ours, settings), factors),
        "CLAM, default": (partial(clam, ClamRule()), factors),
        "CLAM, default with Otsu": (partial(clam, ClamRule(otsu=True)), factors),
        "CLAM, biopsy preset": (partial(clam, ClamRule(False, 15, 11, 2, 1, 1, 2)), factors),
        "tiatoolbox, Otsu": (partial(tiatoolbox, "otsu"), factors),
        "tiatoolbox, morphological": (partial(tiatoolbox, "morphological"), factors),
        "histolab, TissueMask": (histolab, [1.0]),
    }


def read_cases() -> list[Case]:
    """The slides that have boxes, read by the reader that their inspection would choose."""
    drawn = json.loads(BOXES.read_text())
    cases = []
    for name, mpp in drawn["mpp"].items():
        path = next(str(path) for path in DATA.glob(f"*/{name}"))
        info = slide_info(path, mpp, name)
        here = [each for each in drawn["features"] if each["properties"]["slide"] == name]
        rings = [each["geometry"]["coordinates"][0] for each in here]  # from the top-left corner clockwise
        labels = [each["properties"]["class"] for each in here]
        cases.append(Case(info, [Box(label, *ring[0], *ring[2]) for label, ring in zip(labels, rings, strict=True)]))
    return cases


def share_in(mask: Mask, box: Box, size_lv0: tuple[int, int]) -> float:
    """Share of the box's level-0 pixels whose centre lies on tissue."""
    per_px = size_lv0[0] / mask.shape[1], size_lv0[1] / mask.shape[0]
    columns = ((np.arange(box.left, box.right) + 0.5) / per_px[0]).astype(int)
    rows = ((np.arange(box.top, box.bottom) + 0.5) / per_px[1]).astype(int)
    return float(mask[np.ix_(rows, columns)].mean())


def measure(method: Method, factors: Sequence[float], cases: Sequence[Case]) -> Findings:
    """Run a method on every slide, after a first call that does not count, as it may compile."""
    method(cases[0].info, 1.0)
    in_boxes, on_slide, seconds = {}, {}, []
    for case in cases:
        start = time.process_time()
        mask = method(case.info, 1.0)
        seconds.append(time.process_time() - start)
        in_boxes[case.info.slide] = [(box.label, share_in(mask, box, case.info.size_lv0)) for box in case.boxes]
        on_slide[case.info.slide] = [float(method(case.info, factor).mean()) for factor in factors]
    return Findings(in_boxes, on_slide, float(np.mean(seconds)))


def by_slide(findings: Findings) -> list[str]:
    """Our share of tissue in the boxes of each class, and on the whole slide at each resolution."""
    row = "{:<22}" + " {:>7}" * (len(CLASSES) + len(RESOLUTIONS))
    lines = ["", row.format("LesionMap by slide", *CLASSES, *(f"{mpp:g} µm" for mpp in RESOLUTIONS))]
    for slide, shares in findings.on_slide.items():
        means = [findings.mean(label, slide) for label in CLASSES]
        lines.append(row.format(slide, *(f"{share:.3f}" for share in (*means, *shares))).replace("nan", "  –"))
    return lines


def comparison(cases: Sequence[Case]) -> tuple[dict[str, Findings], list[str]]:
    """What each method found, and the table."""
    row = "{:<26}" + " {:>7}" * len(CLASSES) + " {:>10} {:>12}"
    counts = [sum(box.label == label for case in cases for box in case.boxes) for label in CLASSES]
    lines = [row.format("share called tissue", *CLASSES, "stability", "CPU s/slide")]
    lines.append(row.format("boxes", *counts, "", ""))
    found = {}
    for name, (method, factors) in methods().items():
        try:
            found[name] = measure(method, factors, cases)
        except ImportError as error:
            lines.append(f"{name:<26} could not be installed: {error}")
            continue
        figures = *(found[name].mean(label) for label in CLASSES), found[name].stability(), found[name].seconds
        lines.append(row.format(name, *(f"{figure:.3f}" for figure in figures)).replace("nan", "  –"))
    return found, lines


def main() -> None:
    """Measure all methods; print the tables and, last, the line that is quoted."""
    if not DATA.exists():
        sys.exit(f"{DATA} is absent: this benchmark needs its slides (README.md)")
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    found, lines = comparison(read_cases())
    mine = found.pop("LesionMap")
    recall, false = mine.mean("tissue"), mine.mean("glass")
    better = [name for name, peer in found.items() if peer.mean("tissue") > recall and peer.mean("glass") <= false]
    lines += by_slide(mine)
    lines += ["", f"better in tissue_recall at equal or lower glass_fpr: {'; '.join(better) or 'none'}"]
    lines.append(
        f"tissue: tissue_recall={recall:.3f} glass_fpr={false:.3f} fat_recall={mine.mean('fat'):.3f} "
        f"stability={mine.stability():.3f} s_per_slide={mine.seconds:.3f}"
    )
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
