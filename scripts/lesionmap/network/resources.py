"""Operations and memory that a pass needs, by backbone and image size."""

FORWARD_FLOPS = {"resnet18": 19.5e9, "resnet34": 38.8e9, "resnet50": 48.4e9, "resnet101": 87.2e9}  # per 512² image
TRAINING_GB_PER_TILE = 0.5  # 512² image, resnet50, `norm: batch`, fp32 (measured); `frozen` needs half
MOST_TILES_ON_CPU = 4  # for `tile_batch: auto`; larger batches are no faster on a CPU
AUTO = "auto"


def forward_flops(backbone: str, tile_px: int) -> float:
    """Floating-point operations of one forward pass of one image."""
    return FORWARD_FLOPS[backbone] * (tile_px / 512) ** 2


def training_gb(backbone: str, tile_px: int) -> float:
    """Memory in GB that one image needs in the network for its forward and backward pass."""
    return TRAINING_GB_PER_TILE * forward_flops(backbone, tile_px) / FORWARD_FLOPS["resnet50"]
