"""The table of `make cv`: metrics and CPU time of each variant, and the differences of the recommended one."""

import sys
from pathlib import Path

import pandas as pd

METRICS = {"Dice": "slide_mean_dice", "AUROC": "slide_mean_auroc"}
RECOMMENDED, BASELINES = "recommended", ("low_only", "high_only")


def main(folder: str) -> None:
    """Print it from the tables in `folder`, results/experiments."""
    tables = {name: pd.read_csv(Path(folder, f"{name}.tsv"), sep="\t") for name in ("table", "differences", "costs")}
    values = tables["table"].set_index(["variant", "metric"])
    differences = tables["differences"].set_index(["variant", "minus", "metric"])
    for row in tables["costs"].itertuples():
        cpu_s = 3600 * row.training_cpu_hours / row.trainings
        metrics = ", ".join(f"{name} {values.loc[(row.variant, key), 'value']:.3f}" for name, key in METRICS.items())
        print(f"{row.variant}: {metrics}, {cpu_s:.0f} CPU s a training")
    figures = []
    for baseline in BASELINES:
        for name, key in METRICS.items():
            found = differences.loc[(RECOMMENDED, baseline, key), ["difference", "low", "high"]].tolist()
            value, low, high = found
            print(f"{RECOMMENDED} - {baseline}: {name} {value:+.3f} ({low:+.3f} to {high:+.3f})")
            if name == "Dice":
                names = (f"minus_{baseline}{end}" for end in ("", "_lo", "_hi"))
                figures += [f"{figure}={part:.4f}" for figure, part in zip(names, found, strict=True)]
    print("recipe:", *figures)


if __name__ == "__main__":
    main(sys.argv[1])
