"""What is measured on a machine, once."""

import json
import resource

import pytest
from lesionmap.errors import LesionMapError
from lesionmap.network import resources
from lesionmap.network.resources import machine_costs
from lesionmap.network.settings import ModelSettings

SMALL = ModelSettings("resnet18", "group")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("machine") / "machine_costs.json"


@pytest.fixture(scope="module")
def small(cache):
    return machine_costs(SMALL, 64, cache)


def test_larger_tiles_take_more_of_everything_but_the_start(small, cache):
    large = machine_costs(SMALL, 256, cache)
    assert 0 < large.forward_s < large.training_s
    assert small.forward_s < large.forward_s
    assert 2 * small.training_s < large.training_s
    assert 1.5 * small.training_bytes < large.training_bytes
    activations = 256**2 // 4 * 64 * 4 * 2  # of the first convolution and its norm alone, in fp32
    assert activations / 2 < large.training_bytes < 1e9
    assert large.start_s > 0.5


def test_what_was_measured_is_kept_for_the_same_network_tiles_and_machine(small, cache, monkeypatch):
    monkeypatch.setattr(resources, "_measured", lambda *_: pytest.fail("measured again"))
    assert machine_costs(SMALL, 64, cache) == small
    assert machine_costs(ModelSettings("resnet18", "group", "max"), 64, cache) == small
    other = {"start_s": 1, "forward_s": 2, "training_s": 3, "training_bytes": 4}
    monkeypatch.setattr(resources, "_measured", lambda *_: other)
    for changed in (
        lambda: machine_costs(ModelSettings("resnet18", "batch"), 64, cache),
        lambda: machine_costs(SMALL, 96, cache),
    ):
        assert changed().training_bytes == 4
    monkeypatch.setattr(resources, "_cpu", lambda: "another")
    assert machine_costs(SMALL, 64, cache).training_bytes == 4
    assert len(json.loads(cache.read_text())) >= 4


def test_a_machine_with_too_little_memory_is_told(tmp_path, monkeypatch):
    killed = tmp_path / "python"
    killed.write_text("#!/bin/sh\nkill -9 $$\n")
    killed.chmod(0o700)
    monkeypatch.setattr(resources.sys, "executable", str(killed))
    with pytest.raises(LesionMapError, match=r"it was killed \(signal 9\).*lower tiles\.tile_px"):
        machine_costs(SMALL, 64, tmp_path / "machine_costs.json")
    assert not list(tmp_path.glob("machine*"))


def test_the_peak_is_that_of_this_process():
    assert resources._peak_bytes() == pytest.approx(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, rel=0.05)
