"""A cluster, and a site's profile for it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from cluster import PROGRAMS, SYSTEM_FILES, Cluster, find
from project import ROOT

# What docs/cluster.md has a site change, and, to save the tests' time, more frequent looks at the jobs' states.
SITE = {
    "default-resources": {"slurm_partition": "cpu", "slurm_account": "pathology", "in_turn": 1},
    "set-resources": {"train": {"slurm_partition": "gpu"}, "map_slide": {"slurm_partition": "gpu"}},
    "latency-wait": 5,
    "slurm-init-seconds-before-status-checks": 2,
    "seconds-between-status-checks": 2,
}


@pytest.fixture(scope="session")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    missing = [program for program in PROGRAMS if not find(program)]
    assert not missing, f"{missing} are missing: run make test-slurm"
    assert os.getuid() == 0, "run as root: SLURM's configuration must be in /etc/slurm"
    present = [str(path) for path in SYSTEM_FILES if path.exists()]
    assert not present, (
        f"this machine has a SLURM already, which is not to be disturbed: {present}. If they are links into a folder "
        "of tests, a run that was killed left them: kill what its *.pid files name, and remove them"
    )
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    """A site's own copy of the profile."""
    folder = tmp_path_factory.mktemp("site")
    profile = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump(profile | SITE))
    return folder
