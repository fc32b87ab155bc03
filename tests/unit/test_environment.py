import importlib.util
import re
import subprocess
from pathlib import Path

import pytest


def test_the_conda_environment_mirrors_the_lock(request):
    envs = request.config.rootpath / "envs"
    spec = importlib.util.spec_from_file_location("mirror", envs / "mirror.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (envs / "lesionmap.yaml").read_text() == module.mirror()


def test_the_lock_names_no_address(request):
    lock = (request.config.rootpath / "envs/requirements.lock").read_text()
    assert "://" not in lock
    assert not re.search(r"^\s*-", lock.replace("    --hash", ""), flags=re.MULTILINE)


def test_the_opencv_installed_is_the_one_without_libgl(request):
    lock = (request.config.rootpath / "envs/requirements.lock").read_text()
    assert re.findall(r"^opencv[a-z-]*", lock, flags=re.MULTILINE) == ["opencv-python-headless"]
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.distribution("opencv-python")
    (build,) = Path(importlib.util.find_spec("cv2").origin).parent.glob("cv2*.so")
    linked = subprocess.run(["ldd", build], capture_output=True, text=True, check=True).stdout
    assert "libc.so" in linked
    assert "libGL" not in linked


def test_both_images_hold_the_same(request):
    root = request.config.rootpath
    docker = (root / "envs/Dockerfile").read_text().replace("\\\n", "")
    apptainer = (root / "envs/apptainer.def").read_text()
    copied = set(re.findall(r"^COPY (\S+) \1$", docker, flags=re.MULTILINE)) - {"envs/requirements.lock"}
    assert copied == set(re.findall(r"^    (\S+) /opt/lesionmap/\1$", apptainer, flags=re.MULTILINE))
    assert copied == set(re.findall(r"^!(.+)", (root / ".dockerignore").read_text(), flags=re.MULTILINE))
    assert all((root / name).exists() for name in copied)
    assert re.search(r"^FROM \S+/(\S+)", docker, flags=re.MULTILINE)[1] == re.search(r"From: (\S+)", apptainer)[1]
    steps = re.findall(r"(?:apt-get|python3 -m venv|\.venv/bin/pip) [^&\n]*[^&\s]", docker)
    assert len(steps) == 5
    assert [step for step in steps if step not in apptainer] == []
