"""What the parts of ``make gpu-check`` share: the device, speeds, utilisation, and the file of figures."""

import json
import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch

SECONDS_BETWEEN = 0.2


@dataclass(frozen=True)
class Check:
    """How a part is to run.

    Parameters
    ----------
    device : torch.device
        The GPU; the CPU only to try the check itself.
    quick : bool
        Whether all is small: to see that every part runs, not to measure.
    figures : Path
        File for the figures of the last lines, a JSON object per line.
    """

    device: torch.device
    quick: bool
    figures: Path

    def say(self, name: str, value: float, unit: str = "") -> None:
        """Print a row of a table."""
        sys.stdout.write(f"  {name:<62} {value:>10.4g} {unit}\n")
        sys.stdout.flush()

    def note(self, **figures: float) -> None:
        """Put figures of the last lines aside at once: the part may be ended before it is done."""
        with self.figures.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(figures) + "\n")

    def attempt(self, name: str, measure: Callable[[], float], unit: str) -> float:
        """Print a row; one that fails says why, and is NaN."""
        try:
            value = measure()
        except Exception as error:
            reason = (str(error).splitlines() or [""])[0]
            sys.stdout.write(f"  {name:<62} failed: {type(error).__name__}: {reason[:120]}\n")
            return math.nan
        self.say(name, value, unit)
        return value

    def wait(self) -> None:
        """Wait until the device has done all that it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def peak_gb(self) -> float:
        """Peak memory of tensors on the GPU since :meth:`reset_peak`; NaN on a CPU."""
        return torch.cuda.max_memory_allocated(self.device) / 1e9 if self.device.type == "cuda" else math.nan

    def reset_peak(self) -> None:
        """Start to count the peak anew."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def rate(self, work: Callable[[], object], items: int, seconds: float = 4.0) -> float:
        """Items per second of `work`, which does `items` at a time; it is called once before, then for `seconds`."""
        work()
        self.wait()
        limit, calls, start = 0.2 if self.quick else seconds, 0, time.perf_counter()
        while not calls or time.perf_counter() - start < limit:
            work()
            self.wait()
            calls += 1
        return calls * items / (time.perf_counter() - start)


class Utilisation(AbstractContextManager["Utilisation"]):
    """Asks nvidia-smi beside the work how busy the GPU is; `mean` is in percent, NaN if unknown."""

    mean = math.nan

    def __init__(self, device: torch.device) -> None:
        self._samples: list[float] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, args=(device,), daemon=True)

    def __enter__(self) -> "Utilisation":
        self._thread.start()
        return self

    def _sample(self, device: torch.device) -> None:
        if device.type != "cuda":
            return
        command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", f"--id={_id(device)}"]
        while not self._done.wait(SECONDS_BETWEEN):
            try:
                answer = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)  # noqa: S603 - fixed words
                self._samples.append(float(answer.stdout))
            except (OSError, subprocess.SubprocessError, ValueError):
                return

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join(6)
        taken = self._samples[1:] or self._samples  # the first is of the time before, too
        self.mean = sum(taken) / len(taken) if taken else math.nan


def _id(device: torch.device) -> str:
    """What nvidia-smi calls the device, as torch may see only some: its UUID, or else its number."""
    uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    return f"GPU-{uuid}" if uuid else str(device.index or 0)
