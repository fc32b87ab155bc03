"""Export of a model to ONNX, for inference engines and any other program (https://onnx.ai).

Batch norm is folded into the convolutions; the top-down path is the linear map of
:mod:`lesionmap.network.top_down`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor, nn

from lesionmap.errors import ModelError
from lesionmap.files.atomic import written_whole
from lesionmap.files.model_metadata import load_metadata
from lesionmap.files.records import sha256, write_json
from lesionmap.geometry.tiling import FINEST_STRIDE
from lesionmap.network.forward import as_images
from lesionmap.network.model import LesionFPN, scale_and_bias
from lesionmap.network.model_file import load_model
from lesionmap.network.self_check import LOGITS, TILE_LOGITS, at_checked_pixels, check_image

OPSET, IR_VERSION = 21, 10  # of 2024: engines of that year and later read it


def export_model(path: str | Path, output: str | Path, check: str | Path) -> None:
    """Write a model file as ONNX, and what the network gives on :func:`lesionmap.network.self_check.check_image`.

    Equal models give equal bytes. The graph takes ``images``, (N, 3, H, W) uint8 RGB with H and W multiples of 32, and
    gives ``logits``, (N, 1, H, W) float32; with ``norm: batch`` also ``tile_logits``, for images that are tiles of the
    high view: they are normalised by statistics of their own. The metadata are those of the model file.

    Parameters
    ----------
    check : str or Path
        JSON: these logits, computed in float64, with which engines are compared.

    Raises
    ------
    ModelError
        If the model file cannot be used, or if it gives a logit that is NaN or infinite.
    """
    model = load_model(path).double()
    with torch.no_grad():
        logits = {
            name: network(as_images(check_image()[None]))[0, 0].numpy() for name, network in outputs_of(model).items()
        }
    if not np.abs(list(logits.values())).max() < np.finfo(np.float32).max:
        raise ModelError(
            stage="export_model",
            finding=f"the model {path} gives NaN or infinity on a test picture; its weights are unusable",
            remedy="train it anew with a lower train.learning_rate, or give another model as model.path",
        )
    content = as_onnx(model, load_metadata(path)).SerializeToString(deterministic=True)
    with written_whole(output) as draft:
        draft.write_bytes(content)
    checked = {name: at_checked_pixels(values).round(6).tolist() for name, values in logits.items()}
    write_json(check, {"onnx_sha256": sha256(output), **checked})


def outputs_of(model: LesionFPN) -> dict[str, LesionFPN]:
    """The outputs of the graph: which network gives each."""
    for_tiles = model.for_tiles()
    return {LOGITS: model} if for_tiles is model else {LOGITS: model, TILE_LOGITS: for_tiles}


def as_onnx(model: LesionFPN, metadata: dict[str, Any]) -> onnx.ModelProto:
    """The network as an ONNX model with metadata; it must be in float64, in which the weights are merged."""
    graph, outputs = _Graph(), outputs_of(model)
    centred = graph.add("Sub", graph.add("Cast", "images", to=onnx.TensorProto.FLOAT), graph.hold(model.mean))
    for name, network in outputs.items():
        conv, norm = network.stem[0], network.stem[1]
        x = graph.add("Relu", graph.convolved(centred, conv, norm, cast(Tensor, conv.weight) / network.std))
        x = graph.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
        skips = []
        for stage in network.stages:
            for block in stage.children():
                x = _block(graph, block, x)
            skips.append(x)
        graph.resized(_read_out(graph, skips, network.readers()), FINEST_STRIDE, name=name)
    return graph.model(list(outputs), {"lesionmap": json.dumps(metadata, sort_keys=True)})


@dataclass
class _Graph:
    """An ONNX graph that grows; values have the names of the nodes that give them."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)

    def add(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        name = name or f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def hold(self, values: Tensor | NDArray[Any]) -> str:
        """Keep values as a constant: those of a tensor as float32."""
        array = values.detach().numpy().astype(np.float32) if isinstance(values, Tensor) else values
        self.weights.append(numpy_helper.from_array(array, f"weights_{len(self.weights)}"))
        return self.weights[-1].name

    def convolved(self, x: str, conv: Any, norm: Any, weight: Tensor | None = None) -> str:
        """A convolution without bias, and the norm behind it; `weight` replaces the convolution's."""
        weight = conv.weight if weight is None else weight
        if isinstance(norm, nn.GroupNorm):
            x = self._conv(x, weight, torch.zeros(len(weight)), conv)
            own = self.hold(norm.weight), self.hold(norm.bias)
            return self.add("GroupNormalization", x, *own, num_groups=norm.num_groups, epsilon=norm.eps)
        scale, bias = scale_and_bias(norm)
        return self._conv(x, weight * scale[:, None, None, None], bias, conv)

    def _conv(self, x: str, weight: Tensor, bias: Tensor, like: nn.Conv2d) -> str:
        pads = [int(pad) for pad in like.padding] * 2
        return self.add("Conv", x, self.hold(weight), self.hold(bias), strides=list(like.stride), pads=pads)

    def resized(self, x: str, factor: int, name: str = "") -> str:
        """Bilinear upsampling."""
        scales = self.hold(np.array([1, 1, factor, factor], dtype=np.float32))
        return self.add("Resize", x, "", scales, name=name, mode="linear")

    def model(self, outputs: Sequence[str], metadata: dict[str, str]) -> onnx.ModelProto:
        """The finished model, checked."""
        images = helper.make_tensor_value_info("images", onnx.TensorProto.UINT8, ["N", 3, "H", "W"])
        logits = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 1, "H", "W"]) for name in outputs]
        graph = helper.make_graph(self.nodes, "LesionFPN", [images], logits, self.weights)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, producer_name="LesionMap", ir_version=IR_VERSION, opset_imports=opsets)
        helper.set_model_props(model, metadata)
        onnx.checker.check_model(model, full_check=True)
        return model


def _block(graph: _Graph, block: Any, x: str) -> str:
    """A residual block of ResNet, basic or bottleneck."""
    kept = graph.convolved(x, *block.downsample) if block.downsample is not None else x
    convs = [
        (block.get_submodule(f"conv{n}"), block.get_submodule(f"bn{n}")) for n in (1, 2, 3) if hasattr(block, f"bn{n}")
    ]
    for number, (conv, norm) in enumerate(convs):
        x = graph.convolved(x, conv, norm)
        x = x if number == len(convs) - 1 else graph.add("Relu", x)
    return graph.add("Relu", graph.add("Add", x, kept))


def _read_out(graph: _Graph, skips: list[str], readers: list[tuple[Tensor, Tensor]]) -> str:
    """The same as :func:`lesionmap.network.top_down.read_out`."""
    (skip, *above), (weight, bias) = skips, readers[0]
    total = graph.add("Conv", skip, graph.hold(weight[..., None, None]), graph.hold(bias))
    if not above:
        return total
    raised = graph.resized(_read_out(graph, above, readers[1:]), 2)
    channels = np.arange(9 * len(weight)).reshape(-1, 9)  # of each tap
    for tap, (y, x) in enumerate(product((-1, 0, 1), repeat=2)):
        part = graph.add("Gather", raised, graph.hold(channels[:, tap]), axis=1)
        moved = graph.add("Pad", part, graph.hold(np.array([y, x, -y, -x])), "", graph.hold(np.array([2, 3])))
        total = graph.add("Add", total, moved)
    return total
