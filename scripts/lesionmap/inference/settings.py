"""The settings of a probability map, from the config section ``inference``."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from lesionmap.geometry.tiling import FINEST_STRIDE, TileSpec
from lesionmap.maps.probability import N_SCORES, UNMAPPED, first_positive, score_of
from lesionmap.network.settings import TILES

PATENT, MATCH_TRAINING = "patent", "match_training"
NO_REFINEMENT, LESION_REFINEMENT, REFINED_EVERYWHERE = "none", "lesion", "all"
PATENT_MPP = 2.5  # 4× (claim 8)


@dataclass(frozen=True)
class MapSettings:
    """Settings of a slide's probability map; names and defaults as in the config section ``inference``.

    Parameters
    ----------
    tiles : TileSpec
        How the config cuts slides for training.
    magnification : str
        ``patent`` or ``match_training``: the resolution of the first pass.
    overlap : float
        Share of a tile's side that overlaps with the next tile, 0–0.5.
    flips : bool
        Whether each tile is also passed flipped, and the results averaged.
    refine : str
        ``none``, ``unsure``, ``lesion`` or ``all``: which regions are read at full resolution and fused.
    unsure : (float, float)
        Lowest and highest probability that counts as unsure.
    threshold : float, "validation" or None
        Probability from which ``refine: lesion`` takes a pixel as lesion; None for other maps, which do not need it.
    recalibrate : bool
        Whether probabilities are brought to what was observed on the model's validation slides, after refinement.
    max_unreadable_fraction : float
        A slide is refused if a larger share of its tiles cannot be read.
    """

    tiles: TileSpec
    magnification: str = PATENT
    overlap: float = 0
    flips: bool = False
    refine: str = NO_REFINEMENT
    unsure: tuple[float, float] = (0.1, 0.9)
    threshold: float | str | None = None
    recalibrate: bool = False
    max_unreadable_fraction: float = 0

    @classmethod
    def of(cls, inference: Mapping[str, Any], max_unreadable_fraction: float) -> "MapSettings":
        """From the result of :func:`lesionmap.run.config.map_settings`, without the engine's settings."""
        names = {field.name for field in fields(cls)} & inference.keys()
        chosen = {name: inference[name] for name in names}
        spec, unsure = TileSpec(**inference["tiles"]), tuple(inference["unsure"])
        return cls(**chosen | {"tiles": spec, "unsure": unsure, "max_unreadable_fraction": max_unreadable_fraction})

    @property
    def mpp(self) -> float:
        """Resolution of the map, µm/px."""
        return map_mpp(self.magnification, self.tiles)

    @property
    def needs_training_tiles(self) -> bool:
        """Whether the result depends on how the training slides were cut, beyond the size of a tile."""
        return self.magnification == MATCH_TRAINING or self.refine != NO_REFINEMENT

    @property
    def t2_of_first_pass(self) -> bool:
        """Whether refinement takes T2 from the first pass: if that has its resolution, and tiles that overlap."""
        return self.magnification == MATCH_TRAINING and overlap_px(self.overlap, self.tiles.tile_px) > 0

    def refined_range(self, threshold: float) -> tuple[int, int]:
        """Lowest and highest score of the first pass for which a region is refined."""
        least, most = map(score_of, self.unsure)
        return {
            "unsure": (least, most),
            "lesion": (first_positive(threshold), N_SCORES - 1),
            REFINED_EVERYWHERE: (UNMAPPED, N_SCORES - 1),
        }[self.refine]


def view_of(refine: str, fusion: str) -> str:
    """The view in training that a map corresponds to: ``low``, ``fused``, or ``high`` if tiles alone were trained.

    Parameters
    ----------
    refine, fusion : str
        Of the config section ``inference``, and of the network (:class:`lesionmap.network.settings.ModelSettings`).
    """
    return "low" if refine == NO_REFINEMENT else "high" if fusion == TILES else "fused"


def map_mpp(magnification: str, spec: TileSpec) -> float:
    """µm/px of the first pass: the method's 4×, or that of the low view in training."""
    return PATENT_MPP if magnification == PATENT else spec.low_mpp


def overlap_px(overlap: float, tile_px: int) -> int:
    """Overlap of neighbouring tiles in pixels, rounded down so that all tiles align with the network's finest map."""
    return math.floor(overlap * tile_px / FINEST_STRIDE) * FINEST_STRIDE
