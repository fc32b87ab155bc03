import os
import re
import subprocess
import sys
import time

import pytest
from lesionmap.errors import StorageError
from lesionmap.run.start_checks import check_results

OWN_MOUNTS = ["unshare", "--mount", *(["--map-root-user"] if os.geteuid() else [])]


def a_full_disk() -> bool:
    """Whether this process may mount one, which is gone with the command that mounts it."""
    test = [*OWN_MOUNTS, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(test, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not a_full_disk(), reason="no disk can be mounted here")
def test_whether_a_folder_can_be_written_to_is_seen_before(tmp_path):
    code = "from lesionmap.run.start_checks import check_writable; check_writable('results')"
    command = (
        f"'{sys.executable}' -c \"{code}\" && mount -t tmpfs -o ro tmpfs . && cd . && '{sys.executable}' -c \"{code}\""
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [*OWN_MOUNTS, "sh", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert "StorageError: start: results cannot be written to: Read-only file system. Remedy: " in done.stderr


def file_dated(path, seconds):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    date = time.time() + seconds
    os.utime(path, (date, date))
    return path


def test_results_dated_in_the_future_are_counted_and_the_latest_named(tmp_path):
    for name, minutes in (("tiles/a.h5", 5), ("tiles/b.h5", 90), ("tiles/c.h5", -5), ("report/views/a/1.jpg", 200)):
        file_dated(tmp_path / name, 60 * minutes)
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(StorageError, match=re.escape(f"future: 2, of which {tmp_path}/tiles/b.h5 by 90 minutes;")):
        check_results(tmp_path, leave_out=("views",))


def test_clocks_may_differ_by_a_minute(tmp_path):
    file_dated(tmp_path / "a.json", 50)
    check_results(tmp_path)
