"""Small regions, stores and networks that the tests of training share."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from lesionmap.geometry.tiling import TileSpec
from lesionmap.network.model import LesionFPN
from lesionmap.network.region_pass import RegionTensors, TilePasses
from lesionmap.tiles.codec import TileCodec
from lesionmap.tiles.store import Region, new_store, packed
from lesionmap.training.augmentation import Augmentation
from lesionmap.training.processes import train_in_processes
from lesionmap.training.settings import TrainFiles, TrainJob, TrainMachine, TrainSettings
from narrow_resnet import NARROW
from stains import PROFILE

USUAL = TrainSettings(epochs=2, decay_rate=0.5, warmup_updates=4, tile_batch=3)
STAIN = vars(PROFILE)
UNCHANGED = Augmentation()
ALWAYS = TrainMachine("cpu", 0, 2)
WHOLE = {"schedule": "sequential", "epochs": 4, "tile_batch": 1}


def settings(**changes):
    return replace(USUAL, **changes)


def region(seed=0, n_tiles=5, lesion=True, side=32):
    """A random region of 16 possible tiles, of which some are missing and some pixels are beyond the slide."""
    rng = np.random.default_rng(seed)
    places = np.sort(rng.permutation(16)[:n_tiles])
    low_mask = (rng.random((side, side)) < 0.3).astype(np.uint8) * lesion
    low_mask[:, side - 2 :] = 255
    masks = rng.integers(0, 4, (n_tiles, side, side), dtype=np.uint8) * lesion
    masks[:, :3] = 255
    return Region(
        xy_lv0=(128.0 * seed, 0.0),
        low_image=rng.integers(0, 256, (side, side, 3), dtype=np.uint8),
        low_mask=low_mask,
        judged_mask=np.where(rng.random((side, side)) < 0.2, 255, low_mask).astype(np.uint8),
        row_col=np.stack([places // 4, places % 4], axis=1).astype(np.uint8),
        images=rng.integers(0, 256, (n_tiles, side, side, 3), dtype=np.uint8),
        masks=masks,
    )


def tensors(part):
    return RegionTensors(
        name="test",
        tiles_per_side=4,
        low=torch.from_numpy(part.low_image[None]).permute(0, 3, 1, 2),
        low_mask=torch.from_numpy(part.low_mask)[None, None],
        judged_mask=torch.from_numpy(part.judged_mask)[None, None],
        tiles=torch.from_numpy(part.images).permute(0, 3, 1, 2),
        row_col=[(int(r), int(c)) for r, c in part.row_col],
        tile_masks=torch.from_numpy(part.masks)[:, None],
    )


def network(kind=NARROW, dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    model = LesionFPN(kind).to(dtype)
    torch.nn.init.normal_(model.head.weight, std=0.1)
    return model.train()


def passes(model, pool, tile_batch=3, pause_point=lambda: None):
    return TilePasses(model, tile_batch, pool, pause_point)


def store(path, *regions, slide="s1"):
    metadata = {"slide": slide, "identity": "f" * 64, "stain": {"reference": STAIN}, "provenance": {"a": 1}}
    side = len(regions[0].low_mask)
    with new_store(path, TileSpec(4 * side, side, 0.25), metadata, TileCodec()) as writer:
        for part in regions:
            writer.append(packed(part, TileCodec()))
    return str(path)


def files(folder):
    return TrainFiles(*(str(Path(folder) / name) for name in ("trained.json", ".", "events", "train.log")))


def unfinished(folder):
    """The unfinished runs in a folder, those saved last first."""
    found = Path(folder, "unfinished").glob("[!.]*.pt")
    return sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True)


def job(train_stores, val_stores=(), network=NARROW, **changes):
    metadata = {"tiles": {"region_px": 128, "tile_px": 32, "mpp": 0.25}, "provenance": {"code": "c"}}
    return TrainJob(train_stores, val_stores, None, network, settings(**changes), metadata)


def run(folder, train_stores, val_stores=(), machine=None, network=NARROW, **changes):
    """Train in a folder; the folder and its history."""
    asked = job(train_stores, val_stores, network, **changes)
    train_in_processes(asked, files(folder), machine or TrainMachine("cpu", 10, 2))
    with open(folder / "history.csv", encoding="utf-8") as stream:
        return folder, list(csv.DictReader(stream))


def results(folder):
    names = {"trained.json", "history.csv", *(path.name for path in folder.glob("*.safetensors"))}
    return {name: (folder / name).read_bytes() for name in names}
