"""Engines that run the network, behind one interface: OpenVINO on CPUs, torch on GPUs. Needs no torch by itself."""

import ctypes
import logging
import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lesionmap.errors import ModelError, SettingsError
from lesionmap.files.records import read_json
from lesionmap.maps.probability import Values, of_logits
from lesionmap.network.self_check import LOGITS, TILE_LOGITS, at_checked_pixels, check_image

if TYPE_CHECKING:
    import openvino

Images = NDArray[np.uint8]
AUTO, TORCH, OPENVINO = "auto", "torch", "openvino"
FP32, BF16 = "fp32", "bf16"
TOLERANCE = {FP32: 0.001, BF16: 0.2}  # largest difference of a logit, over their standard deviation if above 1
OUTPUTS = (LOGITS, TILE_LOGITS)
UNFLIPPED: tuple[tuple[int, ...], ...] = ((),)
FLIPS: tuple[tuple[int, ...], ...] = ((), (1,), (2,), (1, 2))  # axes of (N, H, W)


@dataclass(frozen=True)
class EngineSettings:
    """Which engine runs the network; names as in the config section ``inference``.

    Parameters
    ----------
    engine : str
        ``auto``, ``torch`` or ``openvino``.
    precision : str
        ``auto``, ``fp32`` or ``bf16``.
    batch_size : int
        Tiles on a GPU at once, if so many fit.
    """

    engine: str = AUTO
    precision: str = AUTO
    batch_size: int = 128


@dataclass(frozen=True)
class EngineFiles:
    """Paths of a model, of the same as ONNX, and of its logits on the check image."""

    model: str
    onnx: str
    check: str


class Engine(ABC):
    """A network, ready to run. On a GPU, images may also be tensors there (:mod:`lesionmap.inference.torch_engine`).

    Attributes
    ----------
    model : str
        Its file, which errors name.
    name, precision : str
        Such as ``openvino`` and ``bf16``.
    device : str
        ``cpu`` or ``cuda:0``.
    batch_size : int
        Images that one call takes at most.
    threads : int
        Calls that may run at once; each takes one core. The result does not depend on their number.
    """

    model: str = ""
    name: str
    precision: str
    device: str = "cpu"
    batch_size: int = 1
    threads: int = 1

    @abstractmethod
    def logits(self, images: Images, *, tiles: bool = False) -> Values:
        """Lesion logits, (N, H, W), of RGB images, (N, H, W, 3); H and W are multiples of 32.

        `tiles` says that they are tiles of the high view: trainable batch norm has statistics of its own for these.
        """

    def shares(self, images: Images, *, factor: int = 1, flips: bool = False, tiles: bool = False) -> Values:
        """Mean probabilities of lesion and of no lesion in squares of `factor` pixels; (2, N, H/factor, W/factor).

        Parameters
        ----------
        images : (N, H, W, 3) uint8
            RGB, normalised.
        flips : bool
            Whether the images also pass mirrored, and the mean of the four is taken.
        tiles : bool
            As for :meth:`logits`.

        Raises
        ------
        FloatingPointError
            If a logit is NaN or infinite; its text is `model`. No image can cause that, so it is the weights.
        """
        maps = []
        for axes in FLIPS if flips else UNFLIPPED:
            logits = np.flip(self.logits(np.flip(images, axes), tiles=tiles), axes)
            if not np.isfinite(logits).all():
                raise FloatingPointError(self.model)
            maps.append(_area_means(np.stack(of_logits(logits)), factor))
        mean: Values = np.mean(maps, axis=0) if flips else maps[0]
        return mean


def _area_means(values: Values, factor: int) -> Values:
    if factor == 1:
        return values
    two, n, height, width = values.shape
    means: Values = values.reshape(two, n, height // factor, factor, width // factor, factor).mean(axis=(3, 5))
    return means


class OpenVinoEngine(Engine):
    """The network on a CPU, in OpenVINO; each call runs on the core that makes it.

    Parameters
    ----------
    path : str
        ONNX file.
    """

    name = OPENVINO

    def __init__(self, path: str, precision: str, threads: int) -> None:
        self.precision, self.threads = precision, threads
        options = {
            "INFERENCE_PRECISION_HINT": {FP32: "f32", BF16: "bf16"}[precision],
            "NUM_STREAMS": str(threads),  # of one core each: sums have one order, whatever the number of threads
            "INFERENCE_NUM_THREADS": str(threads),
            "ENABLE_CPU_PINNING": False,
        }
        self._networks = {
            name: _openvino().compile_model(network, "CPU", options) for name, network in _networks(path).items()
        }
        self._of_thread = threading.local()

    def logits(self, images: Images, *, tiles: bool = False) -> Values:
        """See :meth:`Engine.logits`."""
        name = TILE_LOGITS if tiles and TILE_LOGITS in self._networks else LOGITS
        requests = self._of_thread.__dict__
        if name not in requests:
            requests[name] = self._networks[name].create_infer_request()
        request = requests[name]
        request.infer([np.ascontiguousarray(images.transpose(0, 3, 1, 2))])
        result: Values = request.get_output_tensor().data[:, 0].copy()
        return result


def _networks(path: str) -> dict[str, "openvino.Model"]:
    """The networks of an ONNX file, by output: one that gave several would compute all each time."""
    from openvino import Model

    model = _openvino().read_model(path)
    return {output.any_name: Model([output], model.get_parameters()) for output in model.outputs}


def open_engine(
    files: EngineFiles, settings: EngineSettings, tile_px: int, threads: int
) -> tuple[Engine, dict[str, Any]]:
    """The first of the engines to try that gives the network's logits on the check image, and a record of the choice.

    Raises
    ------
    SettingsError
        If this machine does not have what is asked for.
    ModelError
        If the model cannot be used, or no engine gives its logits within :data:`TOLERANCE`.
    """
    expected = {name: np.array(values) for name, values in read_json(files.check).items() if name in OUTPUTS}
    problems: list[str] = []
    for name, precision in candidates(settings):
        try:
            engine = _opened(name, precision, files, settings.batch_size, tile_px=tile_px, threads=threads)
            engine.model = files.model
            difference = float(np.max([_difference(engine, output, logits) for output, logits in expected.items()]))
        except RuntimeError as error:
            problems.append(f"{name} in {precision}: {str(error).splitlines()[0]}")
        else:
            if difference <= TOLERANCE[precision]:
                record = _record(engine, difference)
                logging.info("the network runs in %(engine)s, %(precision)s, on %(device)s", record)
                return engine, record
            allowed = f"of {TOLERANCE[precision]:g} allowed"
            problems.append(f"{name} in {precision}: its logits differ by {difference:.3g} {allowed}")
        logging.warning("passed over: %s", problems[-1])
    raise ModelError(
        stage="map_slide",
        finding=f"no engine can run the model {files.model} on this machine ({', '.join(problems)})",
        remedy=f"delete {files.onnx} and run again: it is then written anew; or set inference.engine and "
        "inference.precision to auto",
    )


def _difference(engine: Engine, output: str, expected: NDArray[np.float64]) -> float:
    """How far an engine's logits of the check image are from those of the network, in the unit of :data:`TOLERANCE`."""
    found = at_checked_pixels(engine.logits(check_image()[None], tiles=output == TILE_LOGITS)[0])
    return float(np.abs(found - expected).max()) / max(1.0, float(expected.std()))


def candidates(settings: EngineSettings) -> list[tuple[str, str]]:
    """Names and precisions of the engines to try on this machine, the fastest first.

    ``auto`` is torch on a GPU. On a CPU it is OpenVINO in bf16 if the CPU has instructions for that, then OpenVINO in
    fp32, then torch.

    Raises
    ------
    SettingsError
        If the CPU has no instructions for what is asked for.
    """
    on_gpu = settings.engine != OPENVINO and _has_gpu()
    names = [TORCH] if on_gpu else [OPENVINO, TORCH] if settings.engine == AUTO else [settings.engine]
    has_bf16 = on_gpu or _cpu_has_bf16()
    if settings.precision == BF16 and not has_bf16:
        raise SettingsError(
            stage="map_slide",
            finding="inference.precision is bf16, but this CPU has no instructions for it",
            remedy="set inference.precision: auto or fp32",
        )
    precisions = ([BF16, FP32] if has_bf16 else [FP32]) if settings.precision == AUTO else [settings.precision]
    return [(name, precision) for name in names for precision in precisions]


def _opened(name: str, precision: str, files: EngineFiles, batch_size: int, *, tile_px: int, threads: int) -> Engine:
    if name == OPENVINO:
        return OpenVinoEngine(files.onnx, precision, threads)
    from lesionmap.inference.torch_engine import TorchEngine  # torch takes seconds to load

    return TorchEngine(files.model, precision, batch_size, tile_px=tile_px, threads=threads)


def _record(engine: Engine, difference: float) -> dict[str, Any]:
    return {
        "engine": f"{engine.name} {version(engine.name)}",
        "precision": engine.precision,
        "device": engine.device,
        "logit_difference": round(difference, 6),
        "tolerance": TOLERANCE[engine.precision],
    }


def _cpu_has_bf16() -> bool:
    """Whether the CPU has instructions for bf16 (AVX512_BF16, AMX): without them, it is no faster."""
    return "BF16" in _openvino().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@cache
def _openvino() -> "openvino.Core":
    import openvino  # the torch engine does without

    # The data of the first tensor of a process sets up a table, and two threads that ask for it at once wait for each
    # other for ever: one has the table's lock and wants Python's, the other the reverse.
    len(openvino.Tensor(np.zeros(1, dtype=np.float32)).data)
    return openvino.Core()


def _has_gpu() -> bool:
    """Whether torch can use a CUDA GPU; it is loaded only where the driver sees one."""
    if not _gpus_of_driver():
        return False
    import torch

    if not torch.cuda.is_available():
        logging.warning("the NVIDIA driver sees a GPU, but this torch cannot use it: the network runs on the CPU")
        return False
    return True


def _gpus_of_driver() -> int:
    """Number of CUDA GPUs that this process may use, as the driver counts them."""
    try:
        driver, count = ctypes.CDLL("libcuda.so.1"), ctypes.c_int(0)
    except OSError:
        return 0
    return count.value if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 else 0
