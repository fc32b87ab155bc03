"""What the variants of an experiment cost, from Snakemake's benchmark files."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from lesionmap.files.records import read_table
from lesionmap.formatting import as_number

OF_COSTS = (
    *("variant", "recipe", "trainings", "training_hours", "training_cpu_hours", "training_peak_gb"),
    *("maps", "mapping_hours", "mapping_cpu_hours", "mapping_peak_gb"),
)


def costs_of(variant: str, recipe: str, seeds: Collection[str], benchmarks: str) -> dict[str, Any]:
    """Hours and memory of a variant's trainings, and of its maps of held-out slides, as far as they were measured.

    Parameters
    ----------
    recipe : str
        Names its trainings; variants that have one in common share them.
    seeds : collection of str
        Such as ``seed_0``.
    benchmarks : str
        Folder of the benchmark files. Those of a job that went on after a stop are of its last part.
    """
    stages = {
        "trainings": ("training", _of_seeds(Path(benchmarks, "train_fold", recipe), seeds)),
        "maps": ("mapping", _of_seeds(Path(benchmarks, "map_held_out", variant), seeds)),
    }
    costs: dict[str, Any] = {"variant": variant, "recipe": recipe}
    for name, (stage, paths) in stages.items():
        costs |= {name: len(paths)} | {f"{stage}_{key}": value for key, value in _measured(paths).items()}
    return costs


def _of_seeds(folder: Path, seeds: Collection[str]) -> list[Path]:
    return [path for seed in seeds for path in sorted(Path(folder, seed).glob("*.tsv"))]


def _measured(paths: Sequence[Path]) -> dict[str, float | None]:
    """Hours on the clock and of processors, and peak memory, of all jobs."""
    rows = [row for path in paths for row in read_table(path)]
    columns = ("s", "cpu_time", "max_rss")
    found = ([as_number(row[key]) for row in rows] for key in columns)
    seconds, cpu_s, peaks_mb = ([value for value in column if value is not None] for column in found)
    return {
        "hours": round(sum(seconds) / 3600, 4) if seconds else None,
        "cpu_hours": round(sum(cpu_s) / 3600, 4) if cpu_s else None,
        "peak_gb": round(max(peaks_mb) / 1024, 3) if peaks_mb else None,
    }
