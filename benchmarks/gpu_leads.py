"""Part of ``make gpu-check``: what else could make the network faster on a GPU; nothing of it is in use."""

import copy
import sys
import time
from collections.abc import Callable
from functools import partial
from unittest import mock

import torch
from gpu_figures import Check
from gpu_training import Sizes
from lesionmap.network.model import FoldedConv2d, LesionFPN, scale_and_bias
from torch import Tensor, nn

BATCHES, MOST = (1, 4, 16), 128


def measure(check: Check) -> None:
    """A table of leads in bf16, in tiles per second; each stands alone, and one that fails is a line."""
    sizes = Sizes.of(check)
    model = sizes.network(check.device).eval().requires_grad_(False)
    batch = 4 if check.quick else MOST
    tiles = torch.randint(0, 256, (batch, 3, sizes.tile_px, sizes.tile_px), dtype=torch.uint8, device=check.device)
    folded = with_folded_weights(model)
    rows: dict[str, Callable[[], float]] = {}
    for n in (n for n in BATCHES if n <= batch):
        rows[f"as it is, batch {n}"] = partial(eager, check, model, tiles[:n])
        rows[f"CUDA graph, batch {n}"] = partial(graphed, check, model, tiles[:n])
    rows[f"as it is, batch {batch}"] = partial(eager, check, model, tiles)
    rows[f"weights folded once, batch {batch}"] = partial(eager, check, folded, tiles)
    rows["weights folded once, batch 4"] = partial(eager, check, folded, tiles[:4])
    rows[f"channels last off, batch {batch}"] = partial(without_channels_last, check, model, tiles)
    rows[f"cudnn.benchmark, batch {batch}"] = partial(benchmarked, check, model, tiles)
    rows[f"torch.compile, batch {batch}"] = partial(compiled, check, model, tiles)
    for name, measured in rows.items():
        check.attempt(f"lead: {name}", measured, "tiles/s")


def run(model: Callable[[Tensor], Tensor], check: Check, tiles: Tensor) -> Tensor:
    """Logits, in bf16 on a GPU."""
    enabled = check.device.type == "cuda"
    with torch.no_grad(), torch.autocast(check.device.type, torch.bfloat16, enabled=enabled, cache_enabled=False):
        return model(tiles)


def eager(check: Check, model: Callable[[Tensor], Tensor], tiles: Tensor) -> float:
    """As inference runs it now."""
    return check.rate(lambda: run(model, check, tiles), len(tiles), 2)


def graphed(check: Check, model: LesionFPN, tiles: Tensor) -> float:
    """All kernels of a pass launched at once."""
    side = torch.cuda.Stream(check.device)
    side.wait_stream(torch.cuda.current_stream(check.device))
    with torch.cuda.stream(side):
        for _ in range(3):
            run(model, check, tiles)
    torch.cuda.current_stream(check.device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        logits = run(model, check, tiles)
    rate = check.rate(graph.replay, len(tiles), 2)
    difference = float((logits - run(model, check, tiles)).abs().max())
    check.say("  largest difference of its logits", difference)
    return rate


def with_folded_weights(model: LesionFPN) -> LesionFPN:
    """The same network with batch norm multiplied into the convolutions once, not at each pass."""
    folded = copy.deepcopy(model)
    for module in list(folded.modules()):
        for name, conv in list(module.named_children()):
            if isinstance(conv, FoldedConv2d):
                scale, bias = scale_and_bias(conv.norm[0])
                plain = nn.Conv2d(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding)
                plain.weight.data, plain.bias.data = conv.weight.data * scale[:, None, None, None], bias.clone()
                setattr(module, name, plain.to(memory_format=torch.channels_last))
    return folded


def without_channels_last(check: Check, model: LesionFPN, tiles: Tensor) -> float:
    """Images and weights in PyTorch's default order."""
    plain = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    with mock.patch.object(torch, "channels_last", torch.contiguous_format):
        return eager(check, plain, tiles)


def benchmarked(check: Check, model: LesionFPN, tiles: Tensor) -> float:
    """CuDNN tries its algorithms and takes the fastest."""
    torch.backends.cudnn.benchmark = True
    try:
        return eager(check, model, tiles)
    finally:
        torch.backends.cudnn.benchmark = False


def compiled(check: Check, model: LesionFPN, tiles: Tensor) -> float:
    """The network compiled by inductor; also says how long that takes."""
    fast = torch.compile(model)
    start = time.perf_counter()
    run(fast, check, tiles)
    check.wait()
    check.say("  seconds to compile", time.perf_counter() - start, "s")
    sys.stdout.flush()
    return eager(check, fast, tiles)
