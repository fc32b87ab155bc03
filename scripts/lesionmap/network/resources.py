"""What the network takes: operations, by backbone and image size; CPU time and memory, measured on this machine."""

import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from lesionmap.errors import LesionMapError
from lesionmap.files.records import read_json, sha256_of, write_json
from lesionmap.network.settings import ModelSettings

if TYPE_CHECKING:
    from torch import Tensor

    from lesionmap.network.model import LesionFPN

FORWARD_FLOPS = {"resnet18": 19.5e9, "resnet34": 38.8e9, "resnet50": 48.4e9, "resnet101": 87.2e9}  # per 512² image
MOST_TILES_ON_CPU = 4  # for `tile_batch: auto`; larger batches are no faster on a CPU
AUTO = "auto"
SEVERAL = 4  # images at once, as micro-batches have some


def forward_flops(backbone: str, tile_px: int) -> float:
    """Floating-point operations of one forward pass of one image."""
    return FORWARD_FLOPS[backbone] * (tile_px / 512) ** 2


@dataclass(frozen=True)
class MachineCosts:
    """What work takes on one core of this machine.

    Parameters
    ----------
    start_s : float
        CPU seconds in which Python starts and loads torch: a measure of how fast jobs start.
    forward_s, training_s : float
        CPU seconds of one image in the network: in inference; forward and backward in training.
    training_bytes : int
        Memory that each image of a micro-batch takes in training, with its share of the gradients.
    """

    start_s: float
    forward_s: float
    training_s: float
    training_bytes: int


def machine_costs(network: ModelSettings, tile_px: int, cache: str | Path) -> MachineCosts:
    """Measure what work takes on this machine, in a process of its own, within seconds.

    Parameters
    ----------
    cache : str or Path
        JSON file that keeps what was measured, by all that it depends on: so it is measured once, and then the same.

    Raises
    ------
    LesionMapError
        If there is too little memory for it.
    """
    sources = [path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))]
    of = {
        "cpu": _cpu(),
        "torch": version("torch"),
        "backbone": network.backbone,
        "norm": network.norm,
        "tile_px": tile_px,
        "code": sha256(b"".join(sources)).hexdigest()[:16],
    }
    key, known = sha256_of(of)[:16], read_json(cache) if Path(cache).exists() else {}
    if key not in known:
        write_json(cache, known | {key: {"of": of, "costs": _measured(network, tile_px)}})
    return MachineCosts(**read_json(cache)[key]["costs"])


def _cpu() -> str:
    """What the system tells of the CPU's model and features, or a digest of it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    told = sorted({line for line in lines if line.startswith(("model name", "flags"))})
    return sha256_of(told)[:16] if told else platform.processor() or platform.machine()


def _measured(network: ModelSettings, tile_px: int) -> dict[str, float]:
    """The costs as a new process measures them: its peak memory is that of the network alone."""
    command = [sys.executable, "-m", __name__, network.backbone, network.norm, str(tile_px)]
    paths = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": paths}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603  # ours
    if done.returncode < 0:
        raise LesionMapError(
            stage="measurement of the network",
            finding=f"it was killed (signal {-done.returncode}), as systems do when memory runs out",
            remedy="give it more memory, or lower tiles.tile_px",
        )
    done.check_returncode()
    costs: dict[str, float] = json.loads(done.stdout)
    return costs


def _measure(network: ModelSettings, tile_px: int) -> MachineCosts:
    """Measure in this process, which has done nothing else."""
    import torch

    from lesionmap.network.model import LesionFPN

    start_s = time.process_time()
    torch.set_num_threads(1)
    model = LesionFPN(network).to(memory_format=torch.channels_last).train()
    several = torch.zeros(SEVERAL, 3, tile_px, tile_px, dtype=torch.uint8)
    _forward_backward(model, several[:1])  # kernels are compiled and memory is fetched once
    without = psutil.Process().memory_info().rss
    _forward_backward(model, several)
    per_image = (_peak_bytes() - without) // SEVERAL
    training_s = _cpu_seconds(lambda: _forward_backward(model, several)) / SEVERAL
    return MachineCosts(start_s, _inference_seconds(model, tile_px), training_s, max(1, per_image))


def _inference_seconds(model: "LesionFPN", tile_px: int) -> float:
    """CPU seconds of an image in the engine that inference uses on CPUs, in the precision that it takes by itself."""
    import numpy as np
    import openvino

    from lesionmap.network.onnx_export import as_onnx

    core = openvino.Core()
    onnx = core.read_model(as_onnx(model.double().eval(), {}).SerializeToString())
    request = core.compile_model(onnx, "CPU", {"INFERENCE_NUM_THREADS": "1"}).create_infer_request()
    image = np.zeros((1, 3, tile_px, tile_px), dtype=np.uint8)
    request.infer([image])
    return _cpu_seconds(lambda: request.infer([image]))


def _forward_backward(model: "LesionFPN", images: "Tensor") -> None:
    """What training does with images."""
    import torch

    from lesionmap.network.forward import logits_of

    torch.autograd.grad(logits_of(model.train(), images).sum(), list(model.parameters()), allow_unused=True)


def _cpu_seconds(work: Callable[[], object]) -> float:
    """The least of three times: others on the machine make it longer, nothing makes it shorter."""
    taken = []
    for _ in range(3):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return min(taken)


def _peak_bytes() -> int:
    """The most memory that this process has had; the system's usual value may include that of its parent."""
    status = Path("/proc/self/status")
    if status.exists():
        (peak,) = (line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM"))
        return 1024 * int(peak.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(_measure(ModelSettings(*sys.argv[1:3]), int(sys.argv[3])))))
