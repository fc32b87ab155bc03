"""Full disks and folders that cannot be written to: one clear line, nothing half-written, no slide to blame."""

import os
import re
import subprocess
import sys

import pytest
from lesionmap.files.records import write_json
from lesionmap.jobs.log import job_log

MODEL = """
        from lesionmap.network.model import LesionFPN  # imports torch, which the others do without
        from lesionmap.network.model_file import save_model
        from lesionmap.network.settings import ModelSettings
        kind = ModelSettings("resnet18", "group")
        save_model('target', LesionFPN(kind), kind, {})
"""
WRITERS = {  # by h5py, tifffile, through memory, by safetensors and Python itself
    "store": "for _ in range(3): store.append(packed(REGION, TileCodec()))",
    "pyramid": "write_map('target', noise.reshape(1024, -1), MapNotes('s1', 'noise', 1.0, {}), block_mean)",
    "levels": "write_map('target', np.zeros((4096, 4096), np.uint8), MapNotes('s1', 'blank', 1.0, {}), block_mean)",
    "model": MODEL,
    "table": "write_text('target', noise.tobytes().hex())",
}
JOB = """
from contextlib import nullcontext
import numpy as np
from lesionmap.files.records import write_text
from lesionmap.maps.ome_tiff import MapNotes, write_map
from lesionmap.jobs.quarantine import slide_job
from lesionmap.tiles.store import Region, new_store, packed
from lesionmap.geometry.resampling import block_mean
from lesionmap.tiles.codec import TileCodec
from lesionmap.geometry.tiling import TileSpec
noise = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), dtype=np.uint8)
SPEC = TileSpec(1024, 1024, 0.25)
grey = noise[..., 0]
REGION = Region((0, 0), noise, grey, grey, np.zeros((1, 2), np.uint8), noise[None], grey[None])
with slide_job("s1", "logs/extract_tiles/s1.log", [], ["target"]):
    with new_store("target", SPEC, {}, TileCodec()) if STORE else nullcontext() as store:
        WRITE
"""
OWN_MOUNTS = ["unshare", "--mount", *(["--map-root-user"] if os.geteuid() else [])]


def a_full_disk() -> bool:
    """Whether this process may mount one, which is gone with the command that mounts it."""
    test = [*OWN_MOUNTS, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(test, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not a_full_disk(), reason="no small disk can be mounted here")
@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_named_and_leaves_nothing(tmp_path, writer):
    code = JOB.replace("STORE", str(writer == "store")).replace("WRITE", WRITERS[writer])
    (tmp_path / "job.py").write_text(code)
    steps = (
        "mount -t tmpfs -o size=2500k tmpfs disk && cd disk && mkdir -p logs/extract_tiles"
        f" && {{ '{sys.executable}' ../job.py; code=$?; ls -A; exit $code; }}"
    )
    (tmp_path / "disk").mkdir()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [*OWN_MOUNTS, "sh", "-c", steps]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    place = "." if writer == "levels" else "target"  # it asks for room in a file without name
    line = f"LesionMap: slide s1, extract_tiles: {place} could not be read or written: No space left on device; "
    assert done.stderr.startswith(line), done.stderr
    free, of = re.search(r"; ([\d.]+) of ([\d.]+) MB are free on the disk of \S+/disk\.", done.stderr).groups()
    assert float(of) == 2.6
    assert float(free) < 2.6
    assert done.stderr.count("\n") == 1, "one line, no traceback"
    assert "Remedy: free space on that disk and run again; what is finished is kept." in done.stderr
    assert (done.returncode, done.stdout) == (1, "logs\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    for folder in (tmp_path, *list(tmp_path.parents)[:3]):
        folder.chmod(0o755)
    log = tmp_path / "logs/summarise.log"
    log.parent.mkdir()
    log.touch()
    log.chmod(0o666)
    os.seteuid(65534)
    try:
        with pytest.raises(SystemExit) as raised, job_log(str(log)):
            write_json(tmp_path / "results/a.json", {})
    finally:
        os.seteuid(0)
    target = tmp_path / "results/a.json"
    line = (
        f"LesionMap: summarise: {target} could not be read or written: Permission denied. Remedy: have the permissions"
    )
    assert str(raised.value).startswith(line)


@pytest.mark.skipif(not a_full_disk(), reason="no disk can be mounted here")
def test_a_read_only_disk_is_named_where_not_even_the_log_can_be_written(tmp_path):
    (tmp_path / "job.py").write_text(JOB.replace("STORE", "False").replace("WRITE", WRITERS["table"]))
    (tmp_path / "disk").mkdir()
    mounted = "mount -t tmpfs tmpfs disk && cd disk && mkdir -p logs/extract_tiles && mount -o remount,ro ."
    command = f"{mounted} && '{sys.executable}' ../job.py"
    done = subprocess.run(
        [*OWN_MOUNTS, "sh", "-c", command],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    log = f"{tmp_path}/disk/logs/extract_tiles/s1.log"
    line = (
        f"slide s1, extract_tiles: {log} could not be read or written: Read-only file system. Remedy: run in a folder"
    )
    assert done.stderr.startswith(f"LesionMap: {line}"), done.stderr
    assert done.stderr.count("\n") == 1


def test_other_errors_keep_their_traceback(tmp_path, caplog):
    with pytest.raises(FileNotFoundError), job_log(str(tmp_path / "job.log")):
        (tmp_path / "absent").read_text()
    assert "unexpected error" in caplog.text
