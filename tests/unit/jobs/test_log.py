import subprocess
import sys
from pathlib import Path

import lesionmap
import pytest
from lesionmap.errors import SlideError
from lesionmap.jobs.log import job_log


def test_a_users_error_is_one_line_without_traceback(tmp_path):
    log = tmp_path / "job.log"
    with pytest.raises(SystemExit) as raised, job_log(str(log)):
        raise SlideError(slide="s1", stage="fit_stain", finding="it is blue", remedy="look at it")
    assert str(raised.value) == "LesionMap: slide s1, fit_stain: it is blue. Remedy: look at it."


ATTEMPT = """
import logging, sys
sys.path.insert(0, sys.argv[1])
from lesionmap.jobs.log import append_to_log, job_log
if sys.argv[3] == "another process":
    append_to_log(sys.argv[2], "process 2", logging.INFO)
    sys.exit(logging.info("epoch %s", sys.argv[4]))
with job_log(sys.argv[2], resumes=sys.argv[3] == "resumes"):
    logging.info("epoch %s", sys.argv[4])
"""


def attempt(log, kind, number):
    """A job that logs one line, in a process of its own; Snakemake deletes its log first."""
    if kind != "another process":
        log.unlink(missing_ok=True)
    library = str(Path(lesionmap.__file__).parents[1])
    subprocess.run([sys.executable, "-c", ATTEMPT, library, str(log), kind, number], check=True)
    return [line.split(" INFO ")[-1] for line in log.read_text().splitlines()]


def test_the_log_of_a_job_that_resumes_begins_with_its_earlier_attempts(tmp_path):
    log, begins = tmp_path / "train.log", "======== a new attempt begins ========"
    assert attempt(log, "resumes", "1") == [begins, "epoch 1"]
    assert attempt(log, "another process", "1") == [begins, "epoch 1", "process 2: epoch 1"]
    expected = [begins, "epoch 1", "process 2: epoch 1", begins, "epoch 2"]
    assert attempt(log, "resumes", "2") == expected
    assert attempt(log, "resumes", "3") == [*expected, begins, "epoch 3"]


def test_other_logs_are_those_of_the_last_attempt_alone(tmp_path):
    assert attempt(tmp_path / "a.log", "starts anew", "1") == ["epoch 1"]
    assert attempt(tmp_path / "a.log", "starts anew", "2") == ["epoch 2"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.log"]
