"""How many tiles fit the memory that is left."""

import psutil
import pytest
from lesionmap.network import batch_size as tile_batch
from lesionmap.network.batch_size import available_bytes, on_cpu, on_gpu


@pytest.mark.parametrize(
    ("available", "threads", "tiles"),
    [(100e9, 2, 4), (10e9, 2, 4), (9e9, 2, 3), (9e9, 4, 1), (0, 1, 1)],
)
def test_a_cpu_takes_what_its_threads_share_but_no_more_than_four(available, threads, tiles):
    assert on_cpu(int(available), 1e9, threads) == tiles


@pytest.mark.parametrize(("free", "tiles"), [(100e9, 64), (81.25e9, 64), (81.2e9, 32), (5e9, 2), (1e9, 1), (0, 1)])
def test_a_gpu_takes_a_power_of_two_beside_the_low_view(free, tiles):
    assert on_gpu(int(free), int(1e9)) == tiles


def test_control_groups_limit_what_is_available(tmp_path, monkeypatch):
    monkeypatch.setattr(tile_batch, "CGROUPS", tmp_path)
    free = psutil.virtual_memory().available
    assert available_bytes() == pytest.approx(free, rel=0.2)
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    assert available_bytes() == 2_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert available_bytes() > 2_000_000
