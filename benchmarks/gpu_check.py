"""Check LesionMap on a GPU in at most eight minutes: CUDA tests, speed of training and inference, leads.

``make gpu-check`` runs it; the README beside it says what is measured and what it needs.
"""

import argparse
import importlib
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SECONDS = {"tests": 120, "gpu_training": 140, "gpu_inference": 110, "gpu_leads": 75}  # in all, less than 8 minutes
TESTS = ["tests/gpu", "tests/unit/inference/test_torch_engine.py"]
TRAIN = ("regions_per_s_k4", "k16", "k64", "loader_k64", "vs_bare", "utilisation", "peak_gb")
INFER = ("tiles_per_s", "bare", "copy_limit", "vs_bare", "fp32_tiles_per_s", "utilisation", "peak_gb")
MEASURED_AS = {"regions_per_s_k4": "k4"}


def main() -> int:
    """Run all parts; the last two lines are always printed. Returns 1 if a part failed."""
    asked = arguments()
    if asked.part:
        return measure(asked)
    if asked.device == "cuda" and not gpu():
        sys.stdout.write("gpu-check: skipped, torch finds no CUDA GPU\n")
        return 0
    sys.stdout.write(f"gpu-check: {gpu() or 'on the CPU, to try the check: no figure means anything'}\n")
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        figures = {name: Path(folder, name) for name in SECONDS}
        for name, seconds in SECONDS.items():
            start = time.monotonic()
            sys.stdout.write(f"\n== {name.removeprefix('gpu_')}, at most {seconds} s\n")
            sys.stdout.flush()
            problem = run(command(name, asked, figures[name]), asked.device, seconds)
            if problem and name != "gpu_leads":
                failed.append(name.removeprefix("gpu_"))
            sys.stdout.write(f"== {problem or 'done'} after {time.monotonic() - start:.0f} s\n")
        train, infer = (noted(figures[name]) for name in ("gpu_training", "gpu_inference"))
    if asked.device == "cuda":
        failed += [f"no {name} of gpu-train" for name in absent(TRAIN, train)]
        failed += [f"no {name} of gpu-infer" for name in absent(INFER, infer)]
    sys.stdout.write(f"\ngpu-check: {'failed: ' + ', '.join(failed) if failed else 'all parts ran'}\n")
    sys.stdout.write(last_line("gpu-train", TRAIN, train))
    sys.stdout.write(last_line("gpu-infer", INFER, infer))
    return 1 if failed else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu only tries the check itself")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: whether every part runs")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--figures", help=argparse.SUPPRESS)
    return parser.parse_args()


def gpu() -> str:
    """Name of the GPU, and of what runs on it; empty if torch finds none."""
    import torch

    if not torch.cuda.is_available():
        return ""
    cores, python = len(os.sched_getaffinity(0)), sys.version.split()[0]
    return f"{torch.cuda.get_device_name(0)}, {cores} CPU cores, torch {torch.__version__}, Python {python}"


def command(name: str, asked: argparse.Namespace, figures: Path) -> list[str]:
    """What runs a part, in a process of its own: no part can take another down."""
    if name == "tests":
        options = ["-o", "addopts=", "--import-mode=importlib", "--strict-markers", "-p", "no:cacheprovider"]
        options += ["-q", "-s", "--durations=5", "-k", "not other_engines"]  # which need OpenVINO
        return [sys.executable, "-m", "pytest", *options, *TESTS]
    quick = ["--quick"] if asked.quick else []
    options = ["--device", asked.device, "--part", name, "--figures", str(figures), *quick]
    return [sys.executable, str(Path(__file__).resolve()), *options]


def run(arguments: list[str], device: str, seconds: float) -> str:
    """Run a part and all that it starts; what went wrong, or nothing."""
    environment = os.environ | {"DEVICE": device, "PYTHONPATH": str(ROOT / "scripts"), "PYTHONUNBUFFERED": "1"}
    if device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    process = subprocess.Popen(arguments, cwd=ROOT, env=environment, start_new_session=True)  # noqa: S603 - our own
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return f"stopped: it needs more than {seconds} s"
    return f"failed with exit status {code}" if code else ""


def measure(asked: argparse.Namespace) -> int:
    """Run a part in this process."""
    import torch
    from gpu_figures import Check

    check = Check(torch.device(asked.device), asked.quick, Path(asked.figures))
    importlib.import_module(asked.part).measure(check)
    return 0


def noted(path: Path) -> dict[str, float]:
    """The figures that a part has put aside."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {name: value for line in lines for name, value in json.loads(line).items()}


def absent(names: tuple[str, ...], figures: dict[str, float]) -> list[str]:
    """Figures that were not measured; without nvidia-smi, no utilisation can be."""
    return [name for name in names if math.isnan(figure(name, figures)) and name != "utilisation"]


def figure(name: str, figures: dict[str, float]) -> float:
    """A figure of a last line; NaN where there is none."""
    return figures.get(MEASURED_AS.get(name, name), math.nan)


def last_line(title: str, names: tuple[str, ...], figures: dict[str, float]) -> str:
    """All figures of a part."""
    return f"{title}: {' '.join(f'{name}={figure(name, figures):.4g}' for name in names)}\n"


if __name__ == "__main__":
    sys.exit(main())
