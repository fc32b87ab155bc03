"""What befalls the first job of each rule: Python imports this by itself, as its folder is in PYTHONPATH.

The fault and where notes of it are kept come by the environment that faults.py sets.
"""

import atexit
import json
import os
import re
import shutil
import signal
import sys
from pathlib import Path

FAULT, NOTES = os.environ.get("FAULT"), Path(os.environ.get("FAULT_NOTES", ""))
RESULTS = Path("results").absolute()


def rule_of(command):
    """find_tissue of … /project/.snakemake/scripts/tmp1a_b.find_tissue.py: so Snakemake runs a rule's script."""
    found = re.search(r"/\.snakemake/scripts/tmp\w+\.(\w+)\.py$", command[1] if len(command) > 1 else "")
    return found[1] if found else None


def first_time(rule):
    """Whether nothing has befallen this rule yet; from now on it has."""
    try:
        os.close(os.open(NOTES / rule, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def kill_at_rename(rule, whole_run):
    """End this job when its first result is written beside its place, or the whole run when that is in its place."""
    rename = os.replace

    def rename_and_die(source, target, **folders):
        due = Path(target).absolute().is_relative_to(RESULTS) and first_time(rule)
        if due and not whole_run:
            os.kill(os.getpid(), signal.SIGKILL)
        rename(source, target, **folders)
        if due:
            os.killpg(0, signal.SIGKILL)

    os.replace = rename_and_die


def fill_disk(rule):
    """Leave room for half of what this rule writes, while its first job lasts."""
    if not first_time(rule):
        return
    left = json.loads((NOTES / "sizes.json").read_text())[rule] // 2
    ballast = RESULTS / "ballast"
    with open(ballast, "wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, max(1, shutil.disk_usage(RESULTS).free - left))
    atexit.register(ballast.unlink)


if rule := rule_of(sys.orig_argv):
    if FAULT == "full disk":
        fill_disk(rule)
    elif FAULT:
        kill_at_rename(rule, whole_run=FAULT == "killed run")
