"""Inference of whole slides, timed in one run against the bare network and other packages with the same weights.

``make bench-infer`` runs it; the README beside it says who is timed on what.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import openslide
import tifffile
import torch
from infer_contestants import CONTESTANTS, MAP_MPP, MPP, SPEC, THREADS, Case
from lesionmap.files.records import write_json
from lesionmap.inference.sliding_window import TileReader
from lesionmap.network.model import LesionFPN
from lesionmap.network.model_file import save_model
from lesionmap.network.onnx_export import export_model
from lesionmap.network.settings import ModelSettings
from lesionmap.slides.slide import Slide
from lesionmap.slides.tiff_reader import TiffReader
from lesionmap.stain.profile import StainProfile
from lesionmap.stain.table import StainMatch, apply_table
from lesionmap.tissue.detection import TissueSettings, find_tissue
from slide_infos import slide_info

SLIDES = Path("../shared/data/slides")
NETWORK = ModelSettings("resnet50", "frozen")
LESION_SHARE = 0.001  # of the pixels of a slide's middle tile: random weights scatter specks of lesion
COPIES = 4  # of the slide, along each side of the large one
RUIFROK = ((0.650, 0.704, 0.286), (0.072, 0.990, 0.105))
PINKER = ((0.548, 0.771, 0.325), (0.092, 0.952, 0.282))
UNIT = [tuple((np.array(row) / np.linalg.norm(row)).tolist() for row in basis) for basis in (RUIFROK, PINKER)]
STAIN = StainMatch(*(StainProfile(basis, (1.5, 1.0), 1, 0.0, "none", "ok") for basis in UNIT), (1.1, 0.9))
OURS = ("openvino, fp32", "openvino, bf16", "torch, fp32")
ROW = "{:<20} {:<46} {:>5} {:>8} {:>7} {:>7} {:>7}  {}"
ALL_CPUS = os.sched_getaffinity(0)


@dataclass(frozen=True)
class Run:
    """What one run took: seconds, the most memory of its processes, its tiles, and when the first had passed."""

    seconds: float = float("nan")
    rss_mb: float = float("nan")
    tiles: int = 0
    first_tile: float = float("nan")
    problem: str = ""

    def then(self, later: "Run") -> "Run":
        """Both runs, one after the other."""
        problem = self.problem or later.problem
        return Run(self.seconds + later.seconds, max(self.rss_mb, later.rss_mb), self.tiles, self.first_tile, problem)


def run(name: str, folder: Path) -> Run:
    """Run a contestant in a new process on the first `THREADS` processors, from its start to its end."""
    command = [sys.executable, Path(__file__).with_name("infer_contestants.py"), name, folder]
    os.sched_setaffinity(0, sorted(ALL_CPUS)[:THREADS])
    start = time.perf_counter()
    environment = {**os.environ, "STARTED": str(time.time()), "CUDA_VISIBLE_DEVICES": ""}  # all compute on the CPU
    done = subprocess.run(command, env=environment, capture_output=True, text=True)  # noqa: S603  # our own file
    seconds = time.perf_counter() - start
    os.sched_setaffinity(0, ALL_CPUS)
    if done.returncode:
        return Run(problem=done.stderr.strip().splitlines()[-1][:120])
    return Run(**{"seconds": seconds} | json.loads(done.stdout.strip().splitlines()[-1]))


def prepare(path: Path, folder: Path) -> Case:
    """What earlier rules leave: the slide's tissue and stain, and the model; and its normalised tiles."""
    folder.mkdir()
    info = slide_info(path, MPP)
    write_json(folder / "info.json", asdict(info))
    case = Case(folder)
    find_tissue(info, case.file("tissue.tif"), TissueSettings(mpp=8.0, min_area_um2=20000, min_hole_um2=5000))
    write_json(case.file("stain.json"), STAIN.as_record())
    with Slide(info, "benchmark") as slide:
        reader, table = TileReader(slide, SPEC.tile_px, MAP_MPP), STAIN.table(THREADS)
        tiles = np.stack([apply_table(table, reader.read(xy)) for xy in case.corners()])
    np.save(case.file("tiles.npy"), tiles)
    facts = {"tiles": asdict(SPEC), "provenance": {}, "stain_reference": vars(STAIN.reference)}
    middle = torch.from_numpy(tiles[[len(tiles) // 2]]).permute(0, 3, 1, 2)
    save_model(case.file("model.safetensors"), network(middle), NETWORK, facts)
    export_model(case.file("model.safetensors"), case.file("model.onnx"), case.file("check.json"))
    return case


def network(tile: torch.Tensor) -> LesionFPN:
    """The default network with random weights, which find specks of lesion in a tile and saturate no sigmoid."""
    torch.manual_seed(0)
    model = LesionFPN(NETWORK).eval()
    for block in (block for stage in model.stages for block in stage):
        block.bn3.weight.fill_(0.2)
    with torch.no_grad():
        model.head.weight /= model(tile).std()
        model.head.bias -= model(tile).quantile(1 - LESION_SHARE)
    return model


def large_slide(path: Path, target: Path) -> Path:
    """A slide of copies of another, without what lies on its edges, with a pyramid of the same levels."""
    with openslide.OpenSlide(path) as handle:
        sizes = list(handle.level_dimensions)
        factors = [round(factor) for factor in handle.level_downsamples]
    unit = 16 * factors[-1] * 3  # pixels of level 0; in every level it is a multiple of 16, as the side of a tile is
    columns, rows = (length // unit for length in sizes[0])
    with TiffReader(str(path), sizes) as reader, tifffile.TiffWriter(target, bigtiff=True) as tiff:
        for level, factor in enumerate(factors):
            side = min(256, unit // factor)
            across, down = columns * unit // factor // side, rows * unit // factor // side
            encoded = [
                imagecodecs.jpeg8_encode(reader.read(level, (x * side, y * side), (side, side)), level=85)
                for y in range(down)
                for x in range(across)
            ]
            tiff.write(
                repeated(encoded, across),
                shape=(COPIES * down * side, COPIES * across * side, 3),
                dtype=np.uint8,
                tile=(side, side),
                photometric="ycbcr",
                subsampling=(2, 2),
                compression="jpeg",
                subfiletype=int(level > 0),
                metadata=None,
            )
    return target


def repeated(tiles: list[bytes], across: int) -> Iterator[bytes]:
    """The tiles of copies of a slide, row by row."""
    rows = [tiles[first : first + across] for first in range(0, len(tiles), across)]
    for row in COPIES * rows:
        yield from COPIES * row


def compare(case: Case, contestants: Sequence[str], repeats: int) -> dict[str, Run]:
    """The best run of each; they take turns."""
    runs: dict[str, list[Run]] = {name: [] for name in contestants}
    for _ in range(repeats):
        for name in contestants:
            if not any(one.problem for one in runs[name]):
                runs[name].append(run(name, case.folder))
                sys.stderr.write(
                    f"{case.folder.name}: {name} {runs[name][-1].seconds:.1f} s {runs[name][-1].problem}\n"
                )
    best = {name: min(many, key=lambda one: one.seconds) for name, many in runs.items()}
    finding = best.pop("find_lesions")
    whole = {f"LesionMap, {kind}": best[f"map_slide, {kind}"].then(finding) for kind in OURS}
    return best | {"find_lesions": finding} | whole


def table(case: Case, best: dict[str, Run]) -> Iterator[str]:
    """A row per contestant."""
    mm2 = len(case.corners()) * (SPEC.tile_px * MAP_MPP / 1000) ** 2
    for name, one in best.items():
        figures = f"{one.seconds:.2f}", f"{mm2 / one.seconds:.1f}", f"{one.rss_mb:.0f}", f"{one.first_tile:.2f}"
        yield ROW.format(case.folder.name, name, one.tiles or "", *figures, one.problem).rstrip()


def fastest(best: dict[str, Run], kind: str) -> float:
    """Seconds of the fastest whose name begins so; NaN if none ran."""
    return min((one.seconds for name, one in best.items() if name.startswith(kind) and not one.problem), default=np.nan)


def ratios(best: dict[str, Run]) -> str:
    """Ours over the bare network, and each package over ours."""
    fp32 = {name: one for name, one in best.items() if not name.endswith("bf16")}
    ours, in_bf16 = fastest(fp32, "LesionMap, openvino"), fastest(best, "LesionMap, openvino, bf16")
    bare, merged = fastest(best, "bare network"), fastest(fp32, "bare merged")
    return (
        f"vs_bare={ours / bare:.2f} vs_bare_bf16={in_bf16 / bare:.2f} vs_merged={ours / merged:.2f} "
        f"vs_tiatoolbox={fastest(best, 'tiatoolbox') / ours:.2f}x vs_monai={fastest(best, 'MONAI') / ours:.2f}x "
        f"first_tile_s={best['map_slide, openvino, fp32'].first_tile:.2f}"
    )


def is_worth_it(name: str, best: dict[str, Run]) -> bool:
    """Whether it runs on the large slide, too: of each package, and of the bare network, the fastest way."""
    kind = next((kind for kind in ("bare network", "tiatoolbox", "MONAI") if name.startswith(kind)), None)
    return kind is None or best[name].seconds == fastest(best, kind)


def main() -> None:
    """Compare on a slide, then on a large one; print the tables and, last, the line that is quoted."""
    if not SLIDES.exists():
        sys.exit(f"{SLIDES} is absent: this benchmark needs a whole slide (README.md)")
    source = SLIDES / "metaplasia_he.tif"
    with tempfile.TemporaryDirectory() as root:
        case = prepare(source, Path(root, "9 tiles"))
        best = compare(case, list(CONTESTANTS), repeats=2)
        copies = large_slide(source, Path(root, "large.tif"))
        large = prepare(copies, Path(root, "97 tiles"))
        best_large = compare(large, [name for name in CONTESTANTS if is_worth_it(name, best)], repeats=2)
        head = ROW.format("slide", "timed", "tiles", "seconds", "mm²/s", "RSS MB", "first s", "")
        lines = [head, *table(case, best), f"infer_small: {ratios(best)}", *table(large, best_large)]
        sys.stdout.write("\n".join([*lines, f"infer: {ratios(best_large)}"]) + "\n")


if __name__ == "__main__":
    main()
