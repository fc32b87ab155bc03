"""What it takes to read a slide of a benchmark, as an inspection would find it."""

from dataclasses import replace
from pathlib import Path

import yaml
from lesionmap.run.config import inspection_settings
from lesionmap.slides.inspection import InspectionSettings, examine
from lesionmap.slides.reader_selection import choose_reader
from lesionmap.slides.sheet import SlideRow
from lesionmap.slides.slide import SlideInfo

CONFIG = yaml.safe_load((Path(__file__).parents[1] / "config/config.yaml").read_text(encoding="utf-8"))


def slide_info(path: str | Path, mpp: float, slide: str = "slide") -> SlideInfo:
    """Of a slide with `mpp` µm/px at level 0, by the reader that its inspection would choose."""
    row = SlideRow(slide, str(path), "inference", mpp=mpp, upsample=True)
    info = examine(row, InspectionSettings(**inspection_settings(CONFIG)))["info"]
    return replace(info, reader=choose_reader(info, "auto", "benchmark").reader)
