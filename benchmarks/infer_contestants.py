"""Those whom benchmarks/infer.py times; each runs in a process of its own: ``python infer_contestants.py NAME FOLDER``.

It prints, as its last line, a JSON object: tiles, the process's peak memory in MB, and seconds of what it times itself.
Imports stand where they are needed, so that nobody pays for another's.
"""

import json
import logging
import os
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from lesionmap.files.records import read_json
from lesionmap.geometry.tiling import TileSpec, corners_px, map_size
from lesionmap.slides.slide import SlideInfo

MPP, MAP_MPP, THREADS = 0.25, 2.5, 2
SPEC = TileSpec(4096, 512, MPP)
SCALE = MAP_MPP / MPP
THRESHOLD = 0.5
MAPPED = ("probability.ome.tif", "scores.ome.tif", "inference.json")
FOUND = ("lesions.tif", "lesions.geojson", "lesions.tsv", "lesions.json")


class Case:
    """A slide and a folder with all that is known of it before its map is made."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.info = SlideInfo.of(read_json(self.folder / "info.json"))

    def file(self, name: str) -> str:
        """Path of a file in its folder."""
        return str(self.folder / name)

    def corners(self) -> Any:
        """Corners of the tiles with tissue, pixels of the map."""
        from lesionmap.tissue.mask import TissueMask

        tissue, side = TissueMask(self.file("tissue.tif"), self.info), SPEC.tile_px
        grid = corners_px(map_size(self.info.size_lv0, SCALE), side, side)
        return grid[[tissue.any_at(tuple(xy * SCALE), (side, side), SCALE) for xy in grid]]


def network(case: Case, *, as_written: bool = False) -> Any:
    """The network in torch: LesionMap's, or with every step of the method computed as it is written."""
    import torch
    from lesionmap.network.model_file import load_model
    from plain_network import PlainFPN

    torch.set_num_threads(THREADS)
    model = load_model(case.file("model.safetensors"))
    model = PlainFPN.of(model) if as_written else model
    return model.to(memory_format=torch.channels_last)


def bare(
    case: Case, *, as_written: bool, size: int = 1, thread_each: bool = False, bf16: bool = False
) -> dict[str, Any]:
    """Forward passes of tiles in memory, nothing else, after a first pass: in PyTorch's threads, or a tile a thread."""
    import torch
    from lesionmap.network.thread_pool import ThreadPool

    model = network(case, as_written=as_written)
    batches = torch.from_numpy(np.load(case.file("tiles.npy"))).permute(0, 3, 1, 2).split(size)

    def passed(tiles: Any) -> None:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            model(tiles).sigmoid()

    with ThreadPool(THREADS) as pool:
        torch.set_num_threads(1 if thread_each else THREADS)
        each: Callable[..., Any] = pool.map if thread_each else map
        list(each(passed, batches[:THREADS]))
        start = time.perf_counter()
        list(each(passed, batches))
        return {"tiles": sum(map(len, batches)), "seconds": time.perf_counter() - start}


def map_job(case: Case, *, engine: str, precision: str) -> dict[str, Any]:
    """The job of rule map_slide, and how long after the start of its process the first tile has passed."""
    from lesionmap.inference import sliding_window
    from lesionmap.inference.engines import EngineFiles, EngineSettings
    from lesionmap.inference.map_slide import MapFiles, MapInputs, map_slide
    from lesionmap.inference.settings import MapSettings

    first: list[float] = []
    band = sliding_window.RowBand
    add = band.add

    def noted(*arguments: Any) -> None:
        first.append(time.time()) if not first else None
        add(*arguments)

    band.add = noted  # type: ignore[method-assign]  # to see when a tile has come
    names = ("tissue.tif", "stain.json", "model.safetensors", "model.onnx", "check.json")
    tissue, stain, *model = map(case.file, names)
    inputs, files = MapInputs(tissue, stain, [EngineFiles(*model)]), MapFiles(*map(case.file, MAPPED))
    settings, chosen = MapSettings(SPEC), EngineSettings(engine, precision)
    map_slide(case.info, inputs, files, settings, chosen, provenance={}, threads=THREADS)
    return {"tiles": read_json(files.record)["tiles"]["read"], "first_tile": first[0] - float(os.environ["STARTED"])}


def lesion_job(case: Case) -> dict[str, Any]:
    """The job of rule find_lesions."""
    from lesionmap.lesions.find_lesions import LesionFiles, LesionSettings, find_lesions

    files = LesionFiles(*map(case.file, FOUND))
    find_lesions(case.info, case.file("scores.ome.tif"), case.file("tissue.tif"), files, LesionSettings(), {})
    return {"tiles": 0}


def tiatoolbox(case: Case, batch: int = 1, pool: int = 0) -> dict[str, Any]:
    """SemanticSegmentor from the slide's file to a zarr of probabilities and classes; no normalisation, no outlines."""
    import tifffile
    import torch
    from lesionmap.tissue.mask import FOLD
    from tiatoolbox.models.engine.io_config import IOSegmentorConfig
    from tiatoolbox.models.engine.semantic_segmentor import SemanticSegmentor
    from tiatoolbox.models.models_abc import ModelABC

    class Wrapped(ModelABC):  # type: ignore[misc]  # it is untyped
        """Takes (N, s, s, 3) uint8, gives (N, s, s, 1) probabilities."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network(case)

        def forward(self, images: Any) -> Any:
            return self.network(images.permute(0, 3, 1, 2)).sigmoid().permute(0, 2, 3, 1)

        @staticmethod
        def infer_batch(model: Any, batch_data: Any, *, device: str) -> Any:
            with torch.inference_mode():
                return model(batch_data).numpy()

        @staticmethod
        def postproc(image: Any) -> Any:
            return image[..., 0] >= THRESHOLD

    side, resolution = (SPEC.tile_px, SPEC.tile_px), [{"units": "mpp", "resolution": MAP_MPP}]
    tissue = (tifffile.imread(case.file("tissue.tif")) >= FOLD).astype(np.uint8)
    engine = SemanticSegmentor(Wrapped(), batch_size=batch, num_workers=pool, device="cpu", verbose=False)
    layout = IOSegmentorConfig(
        input_resolutions=resolution,
        output_resolutions=resolution,
        patch_input_shape=side,
        patch_output_shape=side,
        stride_shape=side,
    )
    with tempfile.TemporaryDirectory(dir=case.folder) as folder:
        engine.run(
            [Path(case.info.path)],
            masks=[tissue],
            patch_mode=False,
            ioconfig=layout,
            wsireader_kwargs={"mpp": (MPP, MPP), "power": 40},
            save_dir=Path(folder, "out"),
            output_type="zarr",
            return_probabilities=True,
        )
    return {"tiles": len(engine.dataloader.dataset)}


def monai(case: Case, batch: int = 1, pool: int = 0) -> dict[str, Any]:
    """PatchWSIDataset of the same tiles and AvgMerger; neither tissue detection, normalisation nor files."""
    import torch
    from monai.data import DataLoader, PatchWSIDataset
    from monai.inferers import AvgMerger
    from monai.transforms import Resized

    corners, info, model = case.corners(), case.info, network(case)
    level = max(i for i, factor in enumerate(info.downsamples) if factor <= SCALE)
    tiles = PatchWSIDataset(
        [{"image": info.path, "location": [int(y * SCALE), int(x * SCALE)]} for x, y in corners],
        patch_size=round(SPEC.tile_px * SCALE / info.downsamples[level]),
        patch_level=level,
        transform=Resized("image", (SPEC.tile_px, SPEC.tile_px), mode="area"),
        include_label=False,
        center_location=False,
        reader="openslide",
    )
    width, height = (int(corners[:, axis].max()) + SPEC.tile_px for axis in (0, 1))
    merger, places = AvgMerger((1, 1, height, width)), iter(corners)
    with torch.inference_mode():
        for some in DataLoader(tiles, batch_size=batch, num_workers=pool):
            for one in model(some["image"].as_tensor()).sigmoid():
                x, y = next(places)
                merger.aggregate(one[None], (int(y), int(x)))
        lesions = merger.finalize() >= THRESHOLD
    return {"tiles": len(tiles) if lesions.any() else 0}


Contestant = Callable[[Case], dict[str, Any]]
WRITTEN, MERGED = partial(bare, as_written=True), partial(bare, as_written=False)
CONTESTANTS: dict[str, Contestant] = {
    "bare network, PyTorch's threads": WRITTEN,
    "bare network, four tiles at once": partial(WRITTEN, size=4),
    "bare network, a tile a thread": partial(WRITTEN, thread_each=True),
    "bare merged network, PyTorch's threads": MERGED,
    "bare merged network, a tile a thread": partial(MERGED, thread_each=True),
    "bare merged network, a tile a thread, bf16": partial(MERGED, thread_each=True, bf16=True),
    "map_slide, torch, fp32": partial(map_job, engine="torch", precision="fp32"),
    "map_slide, openvino, fp32": partial(map_job, engine="openvino", precision="fp32"),
    "map_slide, openvino, bf16": partial(map_job, engine="openvino", precision="bf16"),
    "find_lesions": lesion_job,
    "tiatoolbox, SemanticSegmentor": tiatoolbox,
    "tiatoolbox, four tiles at once": partial(tiatoolbox, batch=4),
    "tiatoolbox, reading in a process beside": partial(tiatoolbox, pool=1),
    "MONAI, PatchWSIDataset": monai,
    "MONAI, four tiles at once": partial(monai, batch=4),
    "MONAI, reading in a process beside": partial(monai, pool=1),
}


def peak_mb() -> float:
    """Of this process alone: ``ru_maxrss`` would count the parent's before its exec."""
    found = re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text(encoding="utf-8"))
    return int(found[1]) / 1024 if found else float("nan")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    result = CONTESTANTS[sys.argv[1]](Case(sys.argv[2]))
    sys.stdout.write(f"\n{json.dumps(result | {'rss_mb': peak_mb()})}\n")
