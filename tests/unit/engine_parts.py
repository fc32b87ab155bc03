"""Engines of networks that tests make."""

import copy

import numpy as np
from lesionmap.inference.engines import FP32, Engine, OpenVinoEngine
from lesionmap.inference.torch_engine import TorchEngine
from lesionmap.network.model_file import save_model
from narrow_resnet import NARROW


class Pixelwise(Engine):
    """A network without context: `logit` is of images, (N, H, W, 3) float32."""

    def __init__(self, logit, batch_size=1):
        self.logit, self.batch_size, self.threads = logit, batch_size, 2

    def logits(self, images, *, tiles=False):
        return self.logit(images.astype(np.float32))


def openvino_engine(model, folder, precision=FP32, threads=2, settings=NARROW):
    from lesionmap.network.onnx_export import as_onnx  # where a GPU is checked there is no onnx

    path = folder / "network.onnx"
    path.write_bytes(as_onnx(copy.deepcopy(model).double(), {}).SerializeToString())
    return OpenVinoEngine(str(path), precision, threads)


def torch_engine(model, folder, precision=FP32, threads=2, settings=NARROW):
    path = folder / "network.safetensors"
    save_model(path, model, settings, {})
    return TorchEngine(str(path), precision, 3, tile_px=32, threads=threads)


ENGINES = {"openvino": openvino_engine, "torch": torch_engine}
