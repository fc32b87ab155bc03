"""What multi-scale training adds: each schedule trained on the same tiles, with the same seeds and weight updates.

``make ablation`` makes the tile stores and runs it; the README beside it says what is compared.
"""

import argparse
import csv
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from lesionmap.network.settings import ModelSettings
from lesionmap.training.loop import train
from lesionmap.training.settings import TrainFiles, TrainJob, TrainMachine, TrainSettings

SETTINGS = TrainSettings(epochs=6, learning_rate=0.0003, decay_rate=0.1, tile_batch=16)
FACTS = {"provenance": {"code": "ablation"}, "tiles": {}}  # of the model files
# Regions give two updates in `joint`, one in the others: twice the epochs, and half the decay in each, make them equal.
SCHEDULES = {"low_only": (2, "low"), "high_only": (2, "high"), "joint": (1, "fused")}


def settings(schedule: str, seed: int, epochs: int) -> TrainSettings:
    """The schedule's, with as many weight updates as all others and the same learning rate at each."""
    factor, _ = SCHEDULES[schedule]
    return replace(
        SETTINGS, schedule=schedule, seed=seed, epochs=factor * epochs, decay_rate=SETTINGS.decay_rate / factor
    )


def last_epoch(job: TrainJob, folder: Path) -> dict[str, str]:
    """Train, and give the figures of the last epoch: the test slide chooses nothing."""
    files = TrainFiles(*(str(folder / name) for name in ("trained.json", ".", "events", "train.log")))
    train(job, files, TrainMachine(device="auto", checkpoint_minutes=10, threads=os.cpu_count() or 1))
    with open(files.history, encoding="utf-8") as stream:
        return list(csv.DictReader(stream))[-1]


def main() -> None:
    """Train every schedule with every seed; print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("stores", nargs="+", help="tile stores; the last is tested on")
    parser.add_argument("--folder", required=True, help="where models and histories go")
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--weights", help="state dict of the backbone; random if not given")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=SETTINGS.epochs)
    options = parser.parse_args()
    network = ModelSettings(options.backbone, "frozen" if options.weights else "batch")
    lines = ["| training | map | Dice | AUROC | minutes |", "|---|---|---|---|---|"]
    for schedule, (_, view) in SCHEDULES.items():
        start, rows = time.monotonic(), []
        for seed in options.seeds:
            asked = settings(schedule, seed, options.epochs)
            job = TrainJob(options.stores[:-1], options.stores[-1:], options.weights, network, asked, FACTS)
            rows.append(last_epoch(job, Path(options.folder, f"{schedule}_{seed}")))
        minutes = (time.monotonic() - start) / 60 / len(rows)
        for judged in dict.fromkeys(["low", view] if schedule == "joint" else [view]):
            figures = [spread([float(row[f"val_{judged}_{name}"]) for row in rows]) for name in ("dice", "auroc")]
            lines.append(f"| `{schedule}` | {judged} | {' | '.join(figures)} | {minutes:.1f} |")
    sys.stdout.write("\n".join(lines) + "\n")


def spread(values: list[float]) -> str:
    """Mean and, of several, the range."""
    mean = f"{np.mean(values):.2f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.2f}–{max(values):.2f})"


if __name__ == "__main__":
    main()
