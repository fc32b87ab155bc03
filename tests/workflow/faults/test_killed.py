"""SIGKILL while a rule writes: for each rule, the next run ends with the bytes of one that nothing befell."""

from faults import Fault, differing, rules

MOST_ATTEMPTS = 50


def test_each_rules_job_is_killed_before_its_first_result_is_in_place(new, unbroken, tmp_path):
    """Others go on, so that an attempt loses several jobs."""
    finish(fault := fault_of(new("project"), tmp_path, "killed job"))
    assert fault.befallen() == rules(unbroken)
    assert differing(fault.project, unbroken) == set()


def test_snakemake_and_all_its_children_are_killed_when_each_rules_first_result_is_in_place(new, unbroken, tmp_path):
    finish(fault := fault_of(new("project"), tmp_path, "killed run"))
    assert fault.befallen() == rules(unbroken)
    assert differing(fault.project, unbroken) == set()


def fault_of(project, tmp_path, kind):
    (tmp_path / "notes").mkdir()
    return Fault(project, tmp_path / "notes", kind)


def finish(fault):
    """Run again until nothing befalls the run any more."""
    for targets in ((), ("doctor",), ("prune",), ("review",), ()):
        for _ in range(MOST_ATTEMPTS):
            before = fault.befallen()
            ended_well, printed = fault.attempt(*targets)
            if ended_well:
                break
            assert fault.befallen() > before, printed
            if fault.kind == "killed run":
                fault.project.run("--unlock")
        assert ended_well, printed
