"""One forward pass of the network: device, precision and image layout."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lesionmap.errors import SettingsError
from lesionmap.network.model import LesionFPN


def pick_device(name: str = "auto") -> torch.device:
    """The device for ``cpu``, ``cuda`` or ``cuda:N``; ``auto`` is the first CUDA GPU if there is one, else the CPU.

    Raises
    ------
    SettingsError
        If the GPU does not exist.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if count else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= count:
        raise SettingsError(
            stage="train",
            finding=f"train.device is {name}, but torch finds {count} CUDA devices on this machine",
            remedy="set train.device: auto or cpu, or a lower number; or run where nvidia-smi lists that GPU",
        )
    return device


def mixed_precision(device: torch.device) -> torch.autocast:
    """Autocast to bf16 if the device has matrix units for it (GPU, CPU with AMX); else fp32, which is then faster."""
    on_gpu = device.type == "cuda"  # of which some only emulate bf16
    enabled = torch.cuda.is_bf16_supported(False) if on_gpu else torch.cpu._is_amx_tile_supported()
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def logits_of(model: LesionFPN, images: Tensor, readers: Sequence[tuple[Tensor, Tensor]] | None = None) -> Tensor:
    """Logits of (N, 3, H, W) uint8 images, computed in :func:`mixed_precision`; (N, 1, H, W), fp32 or fp64.

    `readers` are those of the model, if they are known.
    """
    with mixed_precision(images.device):
        logits: Tensor = model(images, readers)
    return logits if logits.dtype == torch.float64 else logits.float()


def finite_logits(model: LesionFPN, images: Tensor) -> Tensor:
    """The same as :func:`logits_of`, with a check.

    Raises
    ------
    FloatingPointError
        If a logit is NaN or infinite. No image can cause that, so it is the weights.
    """
    logits = logits_of(model, images)
    if not torch.isfinite(logits).all():
        raise FloatingPointError("a logit is NaN or infinite")
    return logits


def as_images(stack: NDArray[np.uint8]) -> Tensor:
    """Convert uint8 images to the network's layout: (N, H, W, 3) → (N, 3, H, W)."""
    return torch.from_numpy(stack).permute(0, 3, 1, 2)
