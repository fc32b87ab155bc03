"""Inference on a slide of 200,000 × 200,000 px of which almost all is glass: seconds, and memory at its peak.

``make bench-sparse`` runs it. The slide is a BigTIFF with JPEG tiles, all missing but those of a few specimens.
"""

import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import simplejpeg
import tifffile
import torch
from lesionmap.files.pictures import write_tiff
from lesionmap.files.records import write_json
from lesionmap.geometry.tiling import TileSpec
from lesionmap.inference.engines import EngineFiles, EngineSettings
from lesionmap.inference.map_slide import MapFiles, MapInputs, map_slide
from lesionmap.inference.settings import MapSettings
from lesionmap.lesions.find_lesions import LesionFiles, LesionSettings, find_lesions
from lesionmap.network.model import LesionFPN
from lesionmap.network.model_file import save_model
from lesionmap.network.onnx_export import export_model
from lesionmap.network.settings import ModelSettings
from lesionmap.stain.profile import StainProfile
from lesionmap.stain.table import StainMatch
from slide_infos import slide_info

SIDE_PX, TILE_PX, MPP, TISSUE_MPP = 200_000, 512, 0.25, 8.0
FACTORS = (1, 4, 16, 64)
SPECIMENS = ((20_480, 30_720), (102_400, 92_160), (179_200, 179_200))  # corners of squares of SPECIMEN_PX, level 0
SPECIMEN_PX = 15_360
SPEC = TileSpec(4096, 512, MPP)
KIND = ModelSettings("resnet50", "group")
PROFILE = StainProfile(((0.6500, 0.7040, 0.2862), (0.0724, 0.9917, 0.1063)), (1.5, 1.0), 1, 0.0, "none", "ok")


def write_slide(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 90, (TILE_PX, TILE_PX, 3)) + np.array([150, 60, 130])
    tile = simplejpeg.encode_jpeg(noise.astype(np.uint8), quality=80)
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for factor in FACTORS:
            side = SIDE_PX // factor
            tiff.write(
                _tiles(side, factor, tile),
                shape=(side, side, 3),
                dtype=np.uint8,
                tile=(TILE_PX, TILE_PX),
                photometric="ycbcr",
                subsampling=(2, 2),
                compression="jpeg",
                subfiletype=int(factor > 1),
                resolution=(1e4 / (MPP * factor),) * 2,
                resolutionunit="CENTIMETER",
                metadata=None,
            )


def _tiles(side: int, factor: int, tile: bytes) -> Iterator[bytes]:
    n = -(-side // TILE_PX)
    for y, x in np.ndindex(n, n):
        lv0 = np.array([x, y]) * TILE_PX * factor
        on_tissue = any(
            (np.abs(lv0 + TILE_PX * factor / 2 - np.array(corner) - SPECIMEN_PX / 2) <= SPECIMEN_PX / 2).all()
            for corner in SPECIMENS
        )
        yield tile if on_tissue else b""


def write_tissue(path: Path) -> None:
    per_px = TISSUE_MPP / MPP
    codes = np.zeros((int(np.ceil(SIDE_PX / per_px)),) * 2, dtype=np.uint8)
    for x, y in SPECIMENS:
        left, top, side = (int(length / per_px) for length in (x, y, SPECIMEN_PX))
        codes[top : top + side, left : left + side] = 255
    write_tiff(path, codes, mpp=TISSUE_MPP)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_slide(folder / "slide.tif")
        write_tissue(folder / "tissue.tif")
        write_json(folder / "stain.json", StainMatch(PROFILE, PROFILE, (1.0, 1.0)).as_record())
        facts = {"tiles": asdict(SPEC), "provenance": {}, "stain_reference": asdict(PROFILE)}
        torch.manual_seed(0)
        save_model(folder / "model.safetensors", LesionFPN(KIND), KIND, facts)
        info = slide_info(folder / "slide.tif", MPP)
        settings = MapSettings(SPEC, overlap=float(sys.argv[1]) if len(sys.argv) > 1 else 0)
        names = ("probability.ome.tif", "scores.ome.tif", "inference.json")
        mapped = MapFiles(*(str(folder / name) for name in names))
        files = LesionFiles(*(str(folder / f"lesions.{kind}") for kind in ("tif", "geojson", "tsv", "json")))
        export_model(folder / "model.safetensors", folder / "model.onnx", folder / "check.json")
        parts = ("tissue.tif", "stain.json", "model.safetensors", "model.onnx", "check.json")
        tissue, stain, *model = (str(folder / part) for part in parts)
        inputs = MapInputs(tissue, stain, [EngineFiles(*model)])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        start = time.perf_counter()
        map_slide(info, inputs, mapped, settings, EngineSettings(), provenance={}, threads=2)
        find_lesions(info, mapped.scores, inputs.tissue, files, LesionSettings(), {})
        seconds = time.perf_counter() - start
        print(Path(mapped.record).read_text())
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"sparse: seconds={seconds:.0f} rss_before_mb={before:.0f} peak_rss_mb={peak:.0f}")


if __name__ == "__main__":
    main()
