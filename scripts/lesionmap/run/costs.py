"""Estimate the costs of a run: jobs, regions, tiles, disk, memory and hours, and what the estimate rests on."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lesionmap.errors import SlideError
from lesionmap.geometry.resampling import area_resample
from lesionmap.geometry.tiling import TileSpec, map_size
from lesionmap.inference.settings import NO_REFINEMENT
from lesionmap.network.resources import MOST_TILES_ON_CPU, forward_flops, training_gb
from lesionmap.run.manifest import is_segmented
from lesionmap.run.settings import RunSettings
from lesionmap.servers.urls import n_bytes
from lesionmap.slides.identity import slide_state
from lesionmap.slides.slide import Slide, SlideInfo
from lesionmap.tiles.codec import JPEG_XL
from lesionmap.tiles.settings import TileSettings
from lesionmap.tissue.detection import tissue_map
from lesionmap.tissue.mask import FOLD, TISSUE

LABELLED = ("train", "val", "test")
EVERY = (*LABELLED, "inference")
SPLITS_OF_RULE = {  # rules that run once for every readable slide of these splits
    **dict.fromkeys(("find_tissue", "fit_stain", "match_stain", "draw_stain"), EVERY),
    "check_annotation": LABELLED,
    "extract_tiles": ("train", "val"),
    **dict.fromkeys(("map_slide", "find_lesions", "cut_view"), EVERY),
    "evaluate_slide": ("val", "test"),
}
# These, and LAST, run once.
FIRST = ("build_manifest", "list_annotations", "choose_reference", "compare_stains", "summarise_tiles")
IN_TRAINING = ("train", "publish_model", "plot_learning_curves")
LAST = (
    "export_model",
    "describe_model",
    "summarise",
    "plot_metrics",
    "list_quarantine",
    "render_report",
    "conclude",
    "all",
)
OVERVIEW_MPP = 32.0
OVERVIEW_PX_PER_TILE = 4  # minimum along a side: small tiles need a finer overview
MOST_OVERVIEW_PX = 2**26  # size in pixels of the largest level that is decoded for an overview
# Measured on one core of a 2026 server (AVX-512, no AMX), one thread, real H&E.
EXTRACTED_MPX_PER_S = 45  # JPEG decoded, resampled, normalised, cut, compressed
INFERRED_MPX_PER_S = 7  # decoded from a finer level, resampled, normalised
HASHED_MB_PER_S = 500
START_S_PER_SLIDE = 29  # a slide's jobs start Python nine times, and fit stain and tissue
STORE_BYTES_PER_PX = {"lossless": 2.6, "jpeg": 0.4, "jpegxl": 0.25}  # uncompressed: 3; lossy codecs at quality 90
JPEG_XL_LOSSLESS_BYTES_PER_PX = 1.3
CPU_FLOPS = 80e9  # sustained by the network in fp32, forward and backward
LOW_PASSES = {"low_only": 1, "high_only": 0}  # of the low view, per region in training; other schedules: 2
GPU_FLOPS = 20e12  # assumed, not measured: a recent data-centre card in mixed precision


@dataclass(frozen=True)
class Work:
    """The work that a run does on one slide.

    Parameters
    ----------
    regions, tiles : int
        Those cut for training; 0 if the slide is not trained on.
    inference_tiles : int
        Images that inference passes through the network: tiles of the first pass, and tiles and low views of refined
        regions. All regions with tissue count as refined, unless refinement is off.
    tissue_basis : str
        How the tissue was estimated that they are counted on.
    lost_share : float
        Share of the overview that cannot be read.
    store_gb : float
        Size of its tile store on disk.
    cpu_hours : float
        Hours of one core, without the network.
    """

    regions: int
    tiles: int
    inference_tiles: int
    tissue_basis: str
    lost_share: float
    store_gb: float
    cpu_hours: float


@dataclass(frozen=True)
class Costs:
    """Estimated costs of a run. With a GPU, a stage takes its `gpu_hours` instead of its `cpu_hours`.

    Parameters
    ----------
    slides, regions, tiles, inference_tiles : int
        Totals over the usable slides, see :class:`Work`.
    disk_gb, training_memory_gb : float
        Size of all tile stores; memory of training for each CPU thread or GPU.
    cpu_hours, gpu_hours : dict
        By stage; CPU hours are those of one core. A stage that a GPU does not speed up is in `cpu_hours` only.
    basis : list of str
        What the estimates rest on.
    """

    slides: int
    regions: int
    tiles: int
    inference_tiles: int
    disk_gb: float
    training_memory_gb: float
    cpu_hours: dict[str, float]
    gpu_hours: dict[str, float]
    basis: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """The costs as lines of text."""
        yield f"{self.slides} usable slides: {self.regions} regions and {self.tiles} tiles for training"
        yield f"{self.inference_tiles} tiles for inference"
        yield f"disk {self.disk_gb:.2f} GB, memory of training {self.training_memory_gb:.1f} GB a CPU thread or GPU"
        for stage, hours in self.cpu_hours.items():
            gpu = f", or {self.gpu_hours[stage]:.2f} GPU hours" if stage in self.gpu_hours else ""
            yield f"{stage}: {hours:.2f} hours of one CPU core{gpu}"
        yield from (f"basis: {line}" for line in self.basis)


@dataclass(frozen=True)
class Overview:
    """A small tissue map of a slide.

    Parameters
    ----------
    codes : (H, W) uint8
        As of :func:`lesionmap.tissue.detection.tissue_map`.
    basis : str
        How it was found.
    lost_share : float
        Share of the slide that cannot be read, 0 to 1; it counts as tissue.
    seen : bool
        Whether the slide was looked at; if not, all of it counts as tissue.
    """

    codes: NDArray[np.uint8]
    basis: str
    lost_share: float = 0.0
    seen: bool = True


def predict_work(info: SlideInfo, settings: RunSettings, overview: Overview, *, trained: bool) -> Work:
    """Estimate the work on one slide.

    Parameters
    ----------
    overview : Overview
        That of :func:`overview_of`.
    trained : bool
        Whether the slide is cut for training.
    """
    tiles, mapping, spec = settings.tiles, settings.map, settings.tiles.spec
    tissue = (overview.codes >= FOLD).astype(np.uint8) * 255
    shares = _tile_shares(info, tissue, spec.tile_px * spec.mpp)
    n_regions, n_tiles = _kept(shares, spec, tiles.min_tissue_fraction) if trained else (0, 0)
    map_tile_um = spec.tile_px * mapping.mpp
    n_grid = int((_tile_shares(info, tissue, map_tile_um) > 0).sum())
    n_inference = math.ceil(n_grid / (1 - mapping.overlap) ** 2)
    n_refined, n_refined_tiles = (0, 0) if mapping.refine == NO_REFINEMENT else _kept(shares, spec, 0)
    tile_mpx = spec.tile_px**2 / 1e6
    seconds = START_S_PER_SLIDE + n_bytes(slide_state(info.path)) / 1e6 / HASHED_MB_PER_S
    n_read = n_regions + n_refined
    seconds += n_read * spec.region_px**2 / 1e6 / EXTRACTED_MPX_PER_S + n_inference * tile_mpx / INFERRED_MPX_PER_S
    n_images = n_regions + (n_tiles if tiles.stored else 0)
    store_gb = n_images * tile_mpx * _bytes_per_px(tiles) / 1e3
    n_inference += n_refined + n_refined_tiles
    seen = overview.basis, overview.lost_share
    return Work(n_regions, n_tiles, n_inference, *seen, round(store_gb, 3), round(seconds / 3600, 4))


def _bytes_per_px(tiles: TileSettings) -> float:
    lossless_xl = tiles.codec == JPEG_XL and tiles.quality == 100
    return JPEG_XL_LOSSLESS_BYTES_PER_PX if lossless_xl else STORE_BYTES_PER_PX[tiles.codec]


def overview_of(info: SlideInfo, settings: RunSettings) -> Overview:
    """Find the tissue of a slide on a small picture of it, fine enough for its tiles.

    Raises
    ------
    SlideError
        If it shows none.
    """
    spec, tissue = settings.tiles.spec, settings.tissue
    mpp = max(tissue.mpp, min(OVERVIEW_MPP, spec.tile_px * spec.mpp / OVERVIEW_PX_PER_TILE))
    size = map_size(info.size_lv0, mpp / info.mpp)
    level = max(i for i, factor in enumerate(info.downsamples) if factor <= max(1.0, mpp / info.mpp))
    if np.prod(info.level_sizes[level], dtype=float) > MOST_OVERVIEW_PX:
        basis = "all of the slide: it has no small level to look at"
        return Overview(np.full(size[::-1], TISSUE, dtype=np.uint8), basis, seen=False)
    with Slide(info, "doctor") as slide:
        picture, found = slide.read_where_possible((0, 0), size, mpp)
    codes = tissue_map(picture, replace(tissue, mpp=mpp))
    codes[~found] = TISSUE
    if not (codes >= FOLD).any():
        finding, remedy = f"no tissue was found at {mpp:g} µm/px", "look at the slide; remove it if it is blank"
        raise SlideError(slide=info.slide, stage="doctor", finding=finding, remedy=remedy)
    return Overview(codes, f"tissue found at {mpp:g} µm/px", 1 - float(found.mean()))


def _tile_shares(info: SlideInfo, tissue: NDArray[np.uint8], side_um: float) -> NDArray[np.uint8]:
    """Share of tissue × 255 in each tile of a grid over the slide; (rows, columns)."""
    columns, rows = map_size(info.size_lv0, side_um / info.mpp)
    side_px = side_um / info.mpp * tissue.shape[1] / info.size_lv0[0]
    return area_resample(tissue[..., None].repeat(3, axis=2), (0, 0), side_px, (columns, rows), fill=0)[..., 0]


def _kept(shares: NDArray[np.uint8], spec: TileSpec, min_tissue_fraction: float) -> tuple[int, int]:
    """Number of regions with enough tissue, and of their tiles with any tissue."""
    n = spec.tiles_per_side
    padded = np.pad(shares, [(0, -length % n) for length in shares.shape])
    blocks = padded.reshape(padded.shape[0] // n, n, padded.shape[1] // n, n).swapaxes(1, 2)
    kept = blocks[blocks.mean(axis=(2, 3)) / 255 >= max(min_tissue_fraction, 1e-9)]
    return len(kept), int((kept > 0).sum())


def costs_of(work: Sequence[tuple[str, Work]], settings: RunSettings) -> Costs:
    """Add up the costs of all slides, including the network's; `work` pairs each slide's split with its work."""
    backbone, train, tile_px = settings.model.backbone, settings.train, settings.tiles.tile_px
    flops = forward_flops(backbone, tile_px)
    tile_batch = train.tile_batch if isinstance(train.tile_batch, int) else MOST_TILES_ON_CPU
    total = {key: sum(getattr(one, key) for _, one in work) for key in ("regions", "tiles", "inference_tiles")}
    network = {"infer": total["inference_tiles"] * (4 if settings.map.flips else 1) * flops}
    if settings.trains:
        images = sum(_images_per_epoch(split, one, train.schedule) for split, one in work)
        network["train"] = train.epochs * images * flops
    return Costs(
        slides=len(work),
        **total,
        disk_gb=round(sum(one.store_gb for _, one in work), 3),
        training_memory_gb=round(2 + tile_batch * training_gb(backbone, tile_px), 2),
        cpu_hours={"read, normalise, cut": round(sum(one.cpu_hours for _, one in work), 3)}
        | {stage: round(count / CPU_FLOPS / 3600, 3) for stage, count in network.items()},
        gpu_hours={stage: round(count / GPU_FLOPS / 3600, 4) for stage, count in network.items()},
        basis=_basis(flops, _bytes_per_px(settings.tiles), settings.map.refine),
    )


def _images_per_epoch(split: str, work: Work, schedule: str) -> int:
    """Cost of one epoch in forward passes; a backward pass counts as two."""
    low, tiles = LOW_PASSES.get(schedule, 2), 0 if schedule == "low_only" else work.tiles
    return 3 * (low * work.regions + tiles) if split == "train" else min(low, 1) * work.regions + tiles


def _basis(flops: float, bytes_per_px: float, refine: str) -> list[str]:
    at_most = [f"inference.refine: {refine} as if all regions with tissue were refined; it may be far fewer"]
    return [
        *(at_most if refine in ("unsure", "lesion") else []),
        "tissue as found on an overview of each slide; its threshold is that of the run",
        f"a core extracts {EXTRACTED_MPX_PER_S} Mpx/s, reads {INFERRED_MPX_PER_S} Mpx/s for inference and does "
        f"{CPU_FLOPS / 1e9:.0f} GFLOP/s (measured on one core of a 2026 server)",
        f"the network takes {flops / 1e9:.1f} GFLOP a tile forward, three times that in training (counted)",
        f"a GPU does {GPU_FLOPS / 1e12:.0f} TFLOP/s (assumed, not measured)",
        f"images in tile stores take {bytes_per_px} bytes a pixel (measured on H&E)",
    ]


def job_counts(
    splits: Sequence[str], readable: Sequence[tuple[str, str | None]], settings: RunSettings
) -> dict[str, int]:
    """Numbers of jobs of a whole run from its start, by rule.

    Parameters
    ----------
    splits : sequence of str
        Of all slides of the sheet.
    readable : sequence of (split, vendor)
        Of the slides that pass inspection; the vendor is None if it is unknown.
    """
    counts = {"inspect_slide": len(splits), "import_annotation": sum(split in LABELLED for split in splits)}
    counts |= dict.fromkeys(FIRST, 1)
    for rule, needed in SPLITS_OF_RULE.items():
        if settings.trains or rule != "extract_tiles":
            counts[rule] = sum(split in needed for split, _ in readable)
    counts["fetch_backbone"] = int(backbone_to_fetch(settings) is not None)
    counts |= dict.fromkeys(IN_TRAINING if settings.trains else (), 1)
    counts["write_dicom"] = sum(is_segmented(vendor, settings.dicom) for _, vendor in readable)
    counts["compare_models"] = int(settings.compares)
    counts |= dict.fromkeys(LAST, 1)
    return {rule: count for rule, count in counts.items() if count}


def backbone_to_fetch(settings: RunSettings) -> str | None:
    """The file of ImageNet weights that a run will download; None if it needs none or has it."""
    weights = f"resources/backbone/{settings.model.backbone}.pth"
    needed = settings.trains and settings.weights == "imagenet"
    return weights if needed and not Path(weights).is_file() else None
