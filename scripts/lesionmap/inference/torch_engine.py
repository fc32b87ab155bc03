"""The network in torch: on a GPU, and on a CPU where no other engine gives its logits."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d

from lesionmap.inference.engines import BF16, FLIPS, TORCH, UNFLIPPED, Engine, Images
from lesionmap.maps.probability import Values
from lesionmap.network.batch_size import fitting_inference_batch
from lesionmap.network.forward import pick_device
from lesionmap.network.model_file import load_model


class TorchEngine(Engine):
    """The network in torch, on the first GPU if there is one.

    On a GPU, images may be tensors there, (N, H, W, 3) uint8, and maps stay there until they are averaged.

    Parameters
    ----------
    path : str
        Model file.
    batch_size : int
        Images on a GPU at once, if so many fit.
    tile_px : int
        Side of an image.
    device : str
        As for :func:`lesionmap.network.forward.pick_device`.
    """

    name = TORCH

    def __init__(
        self, path: str, precision: str, batch_size: int, *, tile_px: int, threads: int, device: str = "auto"
    ) -> None:
        self._device = pick_device(device)
        self.precision, self.device = precision, str(self._device)
        self.threads = 1 if self._device.type == "cuda" else threads
        torch.set_num_threads(1)  # several threads in one convolution would sum in an order that varies
        self._model = load_model(path).to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # stub lacks it
        self._for_tiles = self._model.for_tiles()
        with torch.inference_mode():
            self.batch_size = fitting_inference_batch(
                self._model, tile_px, batch_size, lambda tiles: self._logits(tiles.permute(0, 2, 3, 1))
            )

    def logits(self, images: Images | Tensor, *, tiles: bool = False) -> Values:
        """See :meth:`Engine.logits`."""
        with torch.inference_mode():
            result: Values = self._logits(images, tiles).cpu().numpy()
        return result

    def shares(self, images: Images | Tensor, *, factor: int = 1, flips: bool = False, tiles: bool = False) -> Values:
        """See :meth:`Engine.shares`."""
        with torch.inference_mode():
            moved = on_device(images, self._device)
            maps = [
                self._shares(moved.flip(axes), factor, tiles).flip([axis + 1 for axis in axes])
                for axes in (FLIPS if flips else UNFLIPPED)
            ]
            mean = torch.stack(maps).mean(0) if flips else maps[0]
            result: Values = torch.empty(mean.shape, pin_memory=mean.is_cuda).copy_(mean).numpy()
        return result

    def _shares(self, images: Tensor, factor: int, tiles: bool) -> Tensor:
        logits = self._logits(images, tiles)
        if not logits.isfinite().all():
            raise FloatingPointError(self.model)
        return avg_pool2d(torch.stack([logits.sigmoid(), logits.neg().sigmoid()]), factor)

    def _logits(self, images: Images | Tensor, tiles: bool = False) -> Tensor:
        moved = on_device(images, self._device).permute(0, 3, 1, 2)
        torch.backends.cudnn.allow_tf32 = self.precision == BF16  # each time: other engines may have another
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self.precision == BF16):
            logits: Tensor = (self._for_tiles if tiles else self._model)(moved)
        return logits[:, 0].float()


class TableOnGpu:
    """A table of colours on the GPU, with which raw pixels are normalised there.

    Parameters
    ----------
    table : (2**24, 3) uint8
        From :func:`lesionmap.stain.table.stain_table`.
    """

    def __init__(self, table: NDArray[np.uint8], device: str) -> None:
        self._table = torch.from_numpy(table).to(device)

    def __call__(self, images: Images) -> Tensor:
        """Images, (..., 3) uint8, normalised; on the GPU."""
        red, green, blue = on_device(images, self._table.device).to(torch.int32).unbind(-1)
        index = (red << 16) | (green << 8) | blue
        return self._table.index_select(0, index.flatten()).reshape(images.shape)


def pinned(images: Images) -> Tensor:
    """A copy from which a GPU reads by itself; memory of earlier ones is used again."""
    return torch.from_numpy(np.ascontiguousarray(images)).pin_memory()


def on_device(images: Images | Tensor, device: torch.device) -> Tensor:
    """An array or tensor on a device; an array goes to a GPU through pinned memory, so that the copy does not block."""
    if isinstance(images, Tensor) and images.device.type == device.type:  # "cuda" may be meant, and it says "cuda:0"
        return images.to(device)
    if device.type == "cpu":
        return torch.from_numpy(np.ascontiguousarray(images))
    return (images if isinstance(images, Tensor) else pinned(images)).to(device, non_blocking=True)
