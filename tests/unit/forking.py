"""Processes that start with torch imported: it is imported once, by the process that they are forked from."""

import multiprocessing
import os
import sys

import pytest

FORKING = multiprocessing.get_context("forkserver")
FORKING.set_forkserver_preload(["process_parts"])


def started(function, *arguments):
    """A process that calls a function."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # for what is imported once
        process = FORKING.Process(target=function, args=arguments)
        process.start()
    return process
