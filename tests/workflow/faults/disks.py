"""Disks of their own for folders, which root may mount."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Disk:
    """What is mounted on a folder, whose content it hides: memory of some size, or the folder itself."""

    folder: Path

    def mount(self, *what: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if os.geteuid():
            pytest.skip("only root may mount disks")
        done = subprocess.run(["mount", *what, self.folder], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no disk can be mounted here: {done.stderr}")

    def remount(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", self.folder], check=True)

    def unmount(self) -> None:
        subprocess.run(["umount", "--lazy", self.folder], check=True)
