"""How slides are cut into tiles and stored: the config section ``tiles``."""

from dataclasses import dataclass

from lesionmap.geometry.tiling import TileSpec
from lesionmap.tiles.codec import LOSSLESS, TileCodec


@dataclass(frozen=True)
class TileSettings:
    """Settings of the tile stores; names as in the config section ``tiles``.

    Parameters
    ----------
    region_px, tile_px, mpp
        See :class:`lesionmap.geometry.tiling.TileSpec`.
    min_tissue_fraction : float
        Regions with a smaller share of tissue are left out, unless they have an annotation.
    codec, quality
        See :class:`lesionmap.tiles.codec.TileCodec`.
    stored : bool
        Whether the tiles' images are stored; otherwise they are read from the slide on demand.
    """

    region_px: int
    tile_px: int
    mpp: float
    min_tissue_fraction: float
    codec: str = LOSSLESS
    quality: int = 90
    stored: bool = True

    @property
    def spec(self) -> TileSpec:
        """How the slide is cut."""
        return TileSpec(self.region_px, self.tile_px, self.mpp)

    @property
    def compression(self) -> TileCodec:
        """How pixels are compressed."""
        return TileCodec(self.codec, self.quality)
