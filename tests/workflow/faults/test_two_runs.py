"""Two runs in one folder at once."""

import time

from faults import differing


def test_a_second_run_is_refused_and_leaves_the_first_unharmed(project, unbroken):
    first = project.start("--forcerun", "map_slide")
    deadline = time.monotonic() + 120
    while "rule map_slide:" not in project.printed():
        assert first.poll() is None, project.printed()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    printed = project.run(ok=False)
    assert first.poll() is None, "the first was still running"
    assert "Directory cannot be locked" in printed
    assert "no other Snakemake process is trying to create the same files" in printed
    assert first.wait(timeout=300) == 0, project.printed()
    assert differing(project, unbroken) == set()
    assert "Nothing to be done" in project.run()
