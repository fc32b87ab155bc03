"""What the network takes in arithmetic and memory, by its backbone and the size of an image."""

FORWARD_FLOPS = {"resnet18": 22.8e9, "resnet34": 42.1e9, "resnet50": 103.9e9, "resnet101": 142.7e9}  # per 512² image
TRAINING_GB_PER_TILE = 0.5  # of a 512² image in resnet50 with `norm: batch` in fp32 (measured); `frozen` takes half
MOST_TILES_ON_CPU = 4  # of `tile_batch: auto`: more make a CPU no faster
AUTO = "auto"


def forward_flops(backbone: str, tile_px: int) -> float:
    """Floating-point operations of one forward pass of one image."""
    return FORWARD_FLOPS[backbone] * (tile_px / 512) ** 2


def training_gb(backbone: str, tile_px: int) -> float:
    """Memory that one image takes in the network until its backward pass is done, GB."""
    return TRAINING_GB_PER_TILE * forward_flops(backbone, tile_px) / FORWARD_FLOPS["resnet50"]
