"""Stain normalisation, timed against other packages in one run, on the same pixels.

``make bench-stain`` runs it; the README beside it says who is timed on what. LesionMap's table is compared with
OpenSlide's decoding of the same pixels, and with StainTools, tiatoolbox, torch-staintools, torchstain and stainx.
"""

import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import openslide
import torch
import yaml
from lesionmap.slides.slide import Slide
from lesionmap.stain.fit import fit, read_boxes, sample_tissue
from lesionmap.stain.white_point import find_white_point
from lesionmap.tissue.detection import TissueSettings, find_tissue
from lesionmap.tissue.mask import TissueMask
from slide_infos import slide_info
from stain_contestants import (
    CONTESTANTS,
    FIT,
    QUOTED,
    REGION,
    TILES,
    Contestant,
    Work,
    lesionmap_region,
    lesionmap_tiles,
    openslide_region,
    read_pixels,
    slide_paths,
)

CONFIG = Path("config/config.yaml")
MOST_REPEATS = 9
MOST_SECONDS = 8.0  # a contestant that has taken as long sits out the other repeats
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
ROW = "{:<17} {:<46} {:>9} {:>10} {:>11}"

Result = TypeVar("Result")


@dataclass(frozen=True)
class Outcome:
    """Seconds per megapixel of a contestant's best repeat; NaN where it could not run, for the `problem` named."""

    seconds_per_mpx: float
    problem: str = ""


def main() -> None:
    """Measure on one thread, then on all; print the table and, last, the line that is quoted."""
    cpus = sorted(os.sched_getaffinity(0))
    single = in_own_process(cpus[-1:], partial(measure, 1))
    whole_slide = in_own_process(cpus[-1:], partial(whole_slide_fit, slide_paths()[0]))
    parallel = in_own_process(cpus, partial(measure, len(cpus)))
    lines = [*table(single, parallel, len(cpus)), "", whole_slide, summary(single)]
    sys.stdout.write("\n".join(lines) + "\n")


def in_own_process(cpus: list[int], task: Callable[[], Result]) -> Result:
    """Run `task` on these processors only, as SPAMS counts processors whatever it is told about threads."""
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(len(cpus))))
    os.sched_setaffinity(0, cpus)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(task).result()


def measure(threads: int) -> list[Outcome]:
    """One outcome per contestant."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    pixels = read_pixels()
    sys.stderr.write(f"threads: {threads}\n")
    return timed([prepared(contestant, partial(contestant.prepare, pixels, threads)) for contestant in CONTESTANTS])


def prepared(contestant: Contestant, prepare: Callable[[], Work]) -> Work | str:
    """A contestant's work, after a warm-up that checks what each call gives; or why there is none."""
    sys.stderr.write(f"warming up {contestant.package}, {contestant.timed}\n")
    try:
        work = prepare()
        for call in work.calls:
            check(call(), work.shape)
    except ImportError as error:
        return f"not installed: {error}"
    except Exception as error:  # whatever goes wrong inside another package belongs in its row
        return f"failed: {error!r}"
    return work


def check(result: Any, shape: tuple[int, ...]) -> None:
    """Raise unless `result` has this shape, in whatever order of axes, holds numbers, and shows something."""
    values = np.asarray(result).squeeze()
    if sorted(values.shape) != sorted(shape) or values.dtype.kind not in "uif":
        raise TypeError(f"{values.dtype} {values.shape} instead of {shape}")
    if not np.isfinite(values).all() or values.min() == values.max():
        raise ValueError("the result is not finite, or everywhere the same")


def timed(works: list[Work | str]) -> list[Outcome]:
    """The best of several repeats, in which the contestants take turns."""
    seconds: list[list[float]] = [[] for _ in works]
    for _ in range(MOST_REPEATS):
        for work, spent in zip(works, seconds, strict=True):
            if isinstance(work, Work) and sum(spent) < MOST_SECONDS:
                spent.append(seconds_of(work))
    return [
        Outcome(float("nan"), work) if isinstance(work, str) else Outcome(1e6 * min(spent) / work.n_pixels)
        for work, spent in zip(works, seconds, strict=True)
    ]


def seconds_of(work: Work) -> float:
    """Time all calls once."""
    start = time.perf_counter()
    results = [call() for call in work.calls]
    elapsed = time.perf_counter() - start
    check(results[-1], work.shape)
    return elapsed


def whole_slide_fit(path: Path) -> str:
    """Time what rule fit_stain does to a whole slide: draw pixels from all over its tissue, and fit them."""
    config = yaml.safe_load(CONFIG.read_text())
    settings, generator = config["stain"], np.random.default_rng(config["stain"]["seed"])
    with openslide.OpenSlide(path) as handle, tempfile.TemporaryDirectory() as folder:
        mpp = float(handle.properties[openslide.PROPERTY_NAME_MPP_X])
        info = slide_info(path, mpp, path.stem)
        find_tissue(info, f"{folder}/tissue.tif", TissueSettings(**config["tissue"]))
        tissue = TissueMask(f"{folder}/tissue.tif", info)
    with Slide(info, "benchmark") as slide:
        start = time.perf_counter()
        boxes = list(read_boxes(slide, tissue, generator))
        white = find_white_point(settings["white_point"], tissue.glass, [box.image for box in boxes]).colour
        sample = sample_tissue(boxes, white, settings["n_pixels"], generator)
        sampling = time.perf_counter() - start
    fit(sample[:1000], settings["method"], white)  # warm-up
    start = time.perf_counter()
    profile = fit(sample, settings["method"], white)
    fitting = time.perf_counter() - start
    return (
        f"whole slide {path.name}, one thread: sampling {sampling:.2f} s + fit {fitting:.2f} s "
        f"({settings['method']}, {profile.n_pixels} pixels, verdict {profile.verdict})"
    )


def table(single: list[Outcome], parallel: list[Outcome], threads: int) -> list[str]:
    """The table's lines: a block per group, whose first row is what the others are compared with."""
    lines = [
        f"Mpx/s in the best of up to {MOST_REPEATS} interleaved repeats",
        ROW.format("package", "timed", "1 thread", f"{threads} threads", "time ÷ ours"),
    ]
    for group in (TILES, REGION, FIT):
        rows = [row for row in zip(CONTESTANTS, single, parallel, strict=True) if row[0].group == group]
        ours = rows[0][1].seconds_per_mpx
        lines += ["", group]
        for contestant, alone, together in rows:
            numbers = speed(alone), speed(together), number(alone.seconds_per_mpx / ours)
            problem = alone.problem or together.problem
            lines.append(f"{ROW.format(contestant.package, contestant.timed, *numbers)}  {problem}".rstrip())
    return lines


def speed(outcome: Outcome) -> str:
    """Mpx/s."""
    return number(1 / outcome.seconds_per_mpx)


def number(value: float, unit: str = "") -> str:
    """Three digits that count; n/a for what could not be measured."""
    if np.isnan(value):
        return "n/a"
    return f"{value:.{max(0, 2 - int(np.floor(np.log10(value))))}f}{unit}"


def summary(single: list[Outcome]) -> str:
    """The line that is quoted; torchstain by the faster of its two ways."""
    seconds = {one.prepare: outcome.seconds_per_mpx for one, outcome in zip(CONTESTANTS, single, strict=True)}
    apply, ours = seconds[lesionmap_region], seconds[lesionmap_tiles]
    ratios = [
        f"vs_{package}={number(float(np.fmin.reduce([seconds[way] for way in ways])) / ours, 'x')}"
        for package, ways in QUOTED.items()
    ]
    share = number(apply / seconds[openslide_region])
    return f"stain: apply={number(1 / apply, 'Mpx/s')} decode_share={share} {' '.join(ratios)}"


if __name__ == "__main__":
    main()
