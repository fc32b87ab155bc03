"""Estimate the costs of a run: jobs, regions, tiles, disk, memory and hours, and what the estimate rests on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import thread_time

import numpy as np
from numpy.typing import NDArray

from lesionmap.annotations.classes import BACKGROUND, IGNORE
from lesionmap.annotations.masks import Annotation
from lesionmap.errors import SlideError
from lesionmap.geometry.tiling import TileSpec, corners_px, cut, grid_xy, inside, map_size, tiles_with
from lesionmap.inference.settings import NO_REFINEMENT, MapSettings, overlap_px
from lesionmap.network.resources import MOST_TILES_ON_CPU, MachineCosts, forward_flops
from lesionmap.run.manifest import is_segmented
from lesionmap.run.settings import RunSettings
from lesionmap.slides.slide import Slide, SlideInfo
from lesionmap.tiles.codec import JPEG_XL
from lesionmap.tiles.extraction import kept_tiles
from lesionmap.tiles.settings import TileSettings
from lesionmap.tissue.detection import tissue_map
from lesionmap.tissue.mask import FOLD, TISSUE, TissueMask
from lesionmap.training.settings import TrainSettings

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
    "list_findings",
    "render_report",
    "conclude",
    "all",
)
COARSEST_MPP = 32.0  # of an overview
MOST_OVERVIEW_PX = 2**26  # size in pixels of the largest level that is decoded for an overview
# CPU seconds of a job without what its slide's size adds, where Python and torch take START_S to start (measured on H&E
# on one core of a 2026 server). Others take OTHER_JOB_S.
JOB_S = {
    "inspect_slide": 1.7,
    "fit_stain": 5.5,
    "match_stain": 1.3,
    "draw_stain": 1.5,
    "extract_tiles": 1.5,
    "map_slide": 1.8,
    "find_lesions": 0.8,
    "cut_view": 1.5,
    "evaluate_slide": 0.8,
    "train": 5.0,
    "export_model": 5.0,
    "plot_learning_curves": 0.9,
    "plot_metrics": 1.7,
    "render_report": 1.5,
    "write_dicom": 1.0,
}
OTHER_JOB_S, START_S = 0.4, 2.15
STORE_BYTES_PER_PX = {"lossless": 2.6, "jpeg": 0.4, "jpegxl": 0.25}  # uncompressed: 3; lossy codecs at quality 90
JPEG_XL_LOSSLESS_BYTES_PER_PX = 1.3
GPU_FLOPS = 20e12  # assumed, not measured: a recent data-centre card in mixed precision
FORWARD_SHARE = 1 / 3  # of an image's operations in training


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
        Hours of one core to read and cut it.
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
            gpu = f", or {self.gpu_hours[stage]:.2g} GPU hours" if stage in self.gpu_hours else ""
            yield f"{stage}: {hours:.2g} hours of one CPU core{gpu}"
        yield f"in all: {sum(self.cpu_hours.values()):.2g} hours of one CPU core"
        yield from (f"basis: {line}" for line in self.basis)


@dataclass(frozen=True)
class Overview:
    """The tissue map of a slide.

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


def predict_work(
    info: SlideInfo, settings: RunSettings, overview: Overview, annotation: Annotation, *, trained: bool
) -> Work:
    """Estimate the work on one slide; some of its pixels are read, to see how long that takes.

    Parameters
    ----------
    overview : Overview
        That of :func:`overview_of`.
    trained : bool
        Whether the slide is cut for training.
    """
    tiles, mapping, tissue = settings.tiles, settings.map, TissueMask(overview.codes, info)
    spec, refined = tiles.spec, mapping.refine != NO_REFINEMENT
    kept = list(_regions(info, tissue, annotation, spec, tiles.min_tissue_fraction)) if trained else []
    looked_at = list(_regions(info, tissue, Annotation(None), spec, 0)) if refined else []
    n_tiles, n_looked_at = (sum(count for count, _ in part) for part in (kept, looked_at))
    first_pass = _first_pass(info, tissue, spec.tile_px, mapping)
    strip_s, tile_s = _reading_seconds(info, tissue, tiles, mapping.mpp)
    seconds = sum(share for _, share in (*kept, *looked_at)) * spec.tiles_per_side * strip_s + len(first_pass) * tile_s
    n_images = len(kept) + (n_tiles if tiles.stored else 0)
    return Work(
        regions=len(kept),
        tiles=n_tiles,
        inference_tiles=len(first_pass) + len(looked_at) + n_looked_at,
        tissue_basis=overview.basis,
        lost_share=overview.lost_share,
        store_gb=round(n_images * spec.tile_px**2 * _bytes_per_px(tiles) / 1e9, 3),
        cpu_hours=round(seconds / 3600, 5),
    )


def _regions(
    info: SlideInfo, tissue: TissueMask, annotation: Annotation, spec: TileSpec, min_tissue_fraction: float
) -> Iterator[tuple[int, float]]:
    """Of each region that is cut, the number of its tiles, and the share of it that lies on the slide.

    They are those of the run, but for outlines far smaller than a tile.
    """
    size, low_scale, side_lv0 = (spec.tile_px,) * 2, spec.low_mpp / info.mpp, spec.region_side_lv0(info.mpp)
    for x, y in grid_xy(info.size_lv0, side_lv0).tolist():
        mask = annotation.mask((x, y), size, low_scale)
        if mask.any() or tissue.any_at((x, y), size, low_scale):
            codes = np.where(mask == IGNORE, 0, tissue.codes_at((x, y), size, low_scale))
            annotated = tiles_with((mask != BACKGROUND) & (mask != IGNORE), spec.tiles_per_side)
            kept = kept_tiles(codes, annotated, min_tissue_fraction)
            if kept is not None:
                columns, rows = inside((x, y), spec.tile_px, low_scale, info.size_lv0)
                yield int(kept.sum()), columns * rows / spec.tile_px**2


def _first_pass(info: SlideInfo, tissue: TissueMask, tile_px: int, mapping: MapSettings) -> list[tuple[float, float]]:
    """Level-0 corners of the tiles that the network maps first."""
    scale, stride_px = mapping.mpp / info.mpp, tile_px - overlap_px(mapping.overlap, tile_px)
    corners = corners_px(map_size(info.size_lv0, scale), tile_px, stride_px) * scale
    return [(x, y) for x, y in corners.tolist() if tissue.any_at((x, y), (tile_px, tile_px), scale)]


def _reading_seconds(info: SlideInfo, tissue: TissueMask, tiles: TileSettings, map_mpp: float) -> tuple[float, float]:
    """CPU seconds to read and compress a row of a region's tiles, and to read a tile for inference, on this slide.

    Means over three places from the top of its tissue to the bottom.
    """
    spec, rows = tiles.spec, np.nonzero(tissue.mask.any(axis=1))[0]
    left, tops = (
        np.nonzero(tissue.mask.any(axis=0))[0][0] * tissue.scale[0],
        (rows[len(rows) * step // 4] for step in (1, 2, 3)),
    )
    strip_s, tile_s = 0.0, 0.0
    with Slide(info, "doctor") as slide:
        for mpp in (map_mpp, spec.mpp):  # opens the file
            slide.read_where_possible((left, 0), (spec.tile_px, spec.tile_px), mpp)
        for top in tops:
            corner = left, float(top * tissue.scale[1])
            start = thread_time()
            slide.read_where_possible(corner, (spec.tile_px, spec.tile_px), map_mpp)
            tile_s, start = tile_s + thread_time() - start, thread_time()
            pixels = slide.read_where_possible(corner, (spec.region_px, spec.tile_px), spec.mpp)[0]
            for tile in cut(pixels, spec.tile_px)[0] if tiles.stored else ():
                tiles.compression.encode(np.ascontiguousarray(tile))
            strip_s += thread_time() - start
    return strip_s / 3, tile_s / 3


def _bytes_per_px(tiles: TileSettings) -> float:
    lossless_xl = tiles.codec == JPEG_XL and tiles.quality == 100
    return JPEG_XL_LOSSLESS_BYTES_PER_PX if lossless_xl else STORE_BYTES_PER_PX[tiles.codec]


def overview_of(info: SlideInfo, settings: RunSettings) -> Overview:
    """Find the tissue of a slide as the run will, or at a coarser resolution if the slide has no level for it.

    Raises
    ------
    SlideError
        If it shows none.
    """
    tissue = settings.tissue
    finer = [tissue.mpp * 2**step for step in range(8) if tissue.mpp * 2**step <= max(COARSEST_MPP, tissue.mpp)]
    small = [mpp for mpp in finer if np.prod(info.level_sizes[info.level_for(mpp)], dtype=float) <= MOST_OVERVIEW_PX]
    if not small:
        basis = "all of the slide: it has no small level to look at"
        size = map_size(info.size_lv0, COARSEST_MPP / info.mpp)
        return Overview(np.full(size[::-1], TISSUE, dtype=np.uint8), basis, seen=False)
    mpp = small[0]
    with Slide(info, "doctor") as slide:
        picture, found = slide.read_where_possible((0, 0), map_size(info.size_lv0, mpp / info.mpp), mpp)
    codes = tissue_map(picture, replace(tissue, mpp=mpp))
    codes[~found] = TISSUE
    if not (codes >= FOLD).any():
        finding, remedy = f"no tissue was found at {mpp:g} µm/px", "look at the slide; remove it if it is blank"
        raise SlideError(slide=info.slide, stage="doctor", finding=finding, remedy=remedy)
    return Overview(codes, f"tissue found at {mpp:g} µm/px", 1 - float(found.mean()))


def costs_of(
    work: Sequence[tuple[str, Work]], settings: RunSettings, machine: MachineCosts, jobs: Mapping[str, int]
) -> Costs:
    """Add up the costs of all slides, including the network's.

    Parameters
    ----------
    work : sequence of (str, Work)
        Each slide's split and work.
    jobs : mapping of str to int
        Number of jobs of each rule.
    """
    backbone, train, tile_px = settings.model.backbone, settings.train, settings.tiles.tile_px
    tile_batch = train.tile_batch if isinstance(train.tile_batch, int) else MOST_TILES_ON_CPU
    total = {key: sum(getattr(one, key) for _, one in work) for key in ("regions", "tiles", "inference_tiles")}
    images = {"infer": total["inference_tiles"] * (4 if settings.map.flips else 1) * FORWARD_SHARE}
    seconds = {"infer": images["infer"] / FORWARD_SHARE * machine.forward_s}
    if settings.trains:
        images["train"] = train.epochs * sum(_images_per_epoch(split, one, train) for split, one in work)
        seconds["train"] = images["train"] * machine.training_s
    start_s = sum(JOB_S.get(rule, OTHER_JOB_S) * count for rule, count in jobs.items()) * machine.start_s / START_S
    flops = forward_flops(backbone, tile_px) / FORWARD_SHARE
    return Costs(
        slides=len(work),
        **total,
        disk_gb=round(sum(one.store_gb for _, one in work), 3),
        training_memory_gb=round(2 + tile_batch * machine.training_bytes / 1e9, 2),
        cpu_hours={
            "start jobs, fit stains, draw": round(start_s / 3600, 4),
            "read and cut": round(sum(one.cpu_hours for _, one in work), 4),
        }
        | {stage: round(count / 3600, 4) for stage, count in seconds.items()},
        gpu_hours={stage: round(count * flops / GPU_FLOPS / 3600, 4) for stage, count in images.items()},
        basis=_basis(machine, tile_px, _bytes_per_px(settings.tiles), settings.map.refine),
    )


def _images_per_epoch(split: str, work: Work, train: TrainSettings) -> float:
    """Cost of one epoch in images that pass forward and backward."""
    low, tiles = train.images(0), 0 if train.schedule == "low_only" else work.tiles
    return low * work.regions + tiles if split == "train" else FORWARD_SHARE * (work.regions + tiles)


def _basis(machine: MachineCosts, tile_px: int, bytes_per_px: float, refine: str) -> list[str]:
    at_most = [f"inference.refine: {refine} as if all regions with tissue were refined; it may be far fewer"]
    return [
        *(at_most if refine in ("unsure", "lesion") else []),
        "tissue as the run finds it, unless tissue_basis says otherwise; reading as measured on each slide",
        f"a core takes {machine.forward_s:.3f} s to pass a tile of {tile_px} px, {machine.training_s:.3f} s and "
        f"{machine.training_bytes / 1e9:.2f} GB to learn from it (measured on this machine)",
        f"jobs take {machine.start_s / START_S:.2f} times as long as on a 2026 server (measured by how Python starts)",
        f"a GPU does {GPU_FLOPS / 1e12:.0f} TFLOP/s (assumed, not measured)",
        f"images in tile stores take {bytes_per_px} bytes a pixel (measured on H&E)",
    ]


def job_counts(
    splits: Sequence[str], readable: Sequence[tuple[str, str | None]], settings: RunSettings, second_readers: int = 0
) -> dict[str, int]:
    """Numbers of jobs of a whole run from its start, by rule.

    Parameters
    ----------
    splits : sequence of str
        Of all slides of the sheet.
    readable : sequence of (split, vendor)
        Of the slides that pass inspection; the vendor is None if it is unknown.
    second_readers : int
        Number of slides of the sheet with the annotation of a second reader that is used.
    """
    counts = {"inspect_slide": len(splits), "import_annotation": sum(split in LABELLED for split in splits)}
    counts["import_second_annotation"] = second_readers
    counts |= dict.fromkeys(FIRST, 1)
    for rule, needed in SPLITS_OF_RULE.items():
        if settings.trains or rule != "extract_tiles":
            counts[rule] = sum(split in needed for split, _ in readable)
    counts["fetch_backbone"] = int(backbone_to_fetch(settings) is not None)
    counts |= dict.fromkeys(IN_TRAINING if settings.trains else (), 1)
    counts["write_dicom"] = sum(is_segmented(vendor, settings.dicom) for _, vendor in readable)
    counts["compare_models"] = int(settings.compares)
    counts["compare_with_before"] = int(Path("results/review/before").is_dir())
    counts |= dict.fromkeys(LAST, 1)
    return {rule: count for rule, count in counts.items() if count}


def backbone_to_fetch(settings: RunSettings) -> str | None:
    """The file of ImageNet weights that a run will download; None if it needs none or has it."""
    weights = f"resources/backbone/{settings.model.backbone}.pth"
    needed = settings.trains and settings.weights == "imagenet"
    return weights if needed and not Path(weights).is_file() else None
