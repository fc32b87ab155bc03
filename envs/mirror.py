"""Write envs/lesionmap.yaml, the conda environment of the rules, from the lock: `make lock` runs this."""

import re
import sys
import tomllib
from pathlib import Path

ENVS = Path(__file__).parent
NOT_IN_RULES = {"snakemake", "snakemake-executor-plugin-slurm"}


def mirror() -> str:
    """The environment file's text: every direct runtime dependency, pinned as in the lock."""
    pins = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ENVS / "requirements.lock").read_text(), flags=re.MULTILINE))
    project = tomllib.loads((ENVS.parent / "pyproject.toml").read_text())["project"]
    names = [re.split(r"[>=]", requirement)[0] for requirement in project["dependencies"]]
    lines = [f"      - {name}=={pins[name]}" for name in names if name not in NOT_IN_RULES]
    head = ["# Written from requirements.lock by `make lock`.", "channels:", "  - conda-forge", "dependencies:"]
    return "\n".join([*head, "  - python =3.11", "  - pip", "  - pip:", *lines, ""])


if __name__ == "__main__":
    (ENVS / "lesionmap.yaml").write_text(mirror())
    sys.stdout.write("envs/lesionmap.yaml\n")
