"""A disk that is full when a rule writes: who, what, where and what to do is said, and nothing half-written stays."""

import json
import os
import re
import shutil

from faults import Fault, differing, rules
from project import Project

MOST_ATTEMPTS = 50
MEMORY = ("-t", "tmpfs", "tmpfs")
# What doctor, prune and review write is no output of theirs: these tables are to stay although they fail.
# Nothing reads the table of annotations, so that Snakemake's summary lacks it.
NOT_IN_SUMMARY = {
    "doctor": ["results/doctor.tsv", "results/doctor.json"],
    "prune": ["results/prune.tsv"],
    "review": ["results/review/slides.tsv"],
    "list_annotations": ["results/annotations.tsv"],
}
# What is in quarantine so far Snakemake itself writes when a run stops, after the job that would have.
SHOWN_AT_THE_END = {f"results/{name}.tsv" for name in ("quarantine", "unreadable", "failed_exports")}


def test_a_disk_that_is_full_when_a_rule_writes(new, unbroken, tmp_path, disk):
    """With room for half of it, so that some of its files may be whole; the disk is full while that job lasts."""
    project = new("project")
    disk(project.folder / "results", *MEMORY, "-osize=400m")
    outputs = outputs_of(unbroken)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/sizes.json").write_text(json.dumps(least_sizes(unbroken.folder, outputs)))
    fault = Fault(project, tmp_path / "notes", "full disk")
    for targets in ((), ("doctor",), ("prune",), ("review",), ()):
        for _ in range(MOST_ATTEMPTS):
            before = fault.befallen()
            ended_well, printed = fault.attempt(*targets)
            assert litter(project) == []
            for rule in fault.befallen() - before:
                check_told(project, rule, printed, outputs)
            if ended_well:
                break
            assert fault.befallen() > before, printed
        assert ended_well, printed
    assert fault.befallen() == rules(unbroken)
    assert differing(project, unbroken) == set()


def test_a_disk_that_is_full_for_snakemake_too(unbroken, tmp_path, disk):
    """All is on it: the logs, and what Snakemake notes. At its very end Snakemake has only words of its own."""
    disk(tmp_path / "disk", *MEMORY, "-osize=600m")
    project = Project(tmp_path / "disk/project", config=unbroken.config)
    shutil.copytree(unbroken.folder, project.folder, copy_function=shutil.copy2)
    target = "results/model/lesionmap.safetensors"
    (project.folder / target).unlink()
    shutil.rmtree(project.folder / "results/model/runs")
    ballast = fill(tmp_path / "disk", left=200_000)
    printed = project.run(target, ok=False)
    assert "LesionMap: train: results/model/" in printed
    assert "Remedy: free space on that disk and run again" in printed
    assert "Traceback" not in printed
    ballast.unlink()
    ballast = fill(tmp_path / "disk", left=0)
    assert "No space left on device" in project.run(target, ok=False)
    ballast.unlink()
    project.run(target)
    assert (project.folder / target).read_bytes() == (unbroken.folder / target).read_bytes()


def fill(folder, left):
    with open(folder / "ballast", "wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, shutil.disk_usage(folder).free - left)
    return folder / "ballast"


def check_told(project, rule, printed, outputs):
    """The terminal and the rule's log say the same, and the job's outputs are not there."""
    (line,) = re.findall(rf"LesionMap: ((?:slide \S+, )?{rule}: .*)", printed)
    told = r"(?:slide (\S+), )?\w+: (\S+) could not be read or written: No space left on device; ([\d.]+) of 419.4 MB"
    slide, path, free = re.match(told, line).groups()
    assert path.startswith("results/")
    assert float(free) < 419
    assert line.endswith("Remedy: free space on that disk and run again; what is finished is kept.")
    log = project.folder / (f"logs/{rule}/{slide}.log" if slide else f"logs/{rule}.log")
    assert line in log.read_text()
    assert "Traceback" not in printed
    assert "Traceback" not in log.read_text()
    there = {name for name in outputs[rule, slide] if (project.folder / name).exists()}
    assert there <= SHOWN_AT_THE_END


def litter(project):
    """Drafts, which are hidden files or folders; Snakemake's own hidden files say when a folder was made."""
    hidden = (project.folder / "results").rglob(".*")
    return [str(path) for path in hidden if path.name != ".snakemake_timestamp"]


def outputs_of(project):
    """The outputs of each rule and slide; slide None: of the cohort."""
    found = {(rule, None): names for rule, names in NOT_IN_SUMMARY.items()}
    for line in project.run("--detailed-summary").splitlines():
        name, _, rule, *_ = [*line.split("\t"), "", ""]
        if name.startswith("results/"):
            slide = re.search(r"(train_1|test_1)(?![^/.])", name)
            found.setdefault((rule, slide and slide[1]), []).append(name)
    return found


def least_sizes(folder, outputs):
    """Bytes that the smallest job of each rule writes."""
    sizes = {}
    for (rule, _), names in outputs.items():
        size = sum(map(size_of, [folder / name for name in names]))
        sizes[rule] = min(size, sizes.get(rule, size))
    return sizes


def size_of(path):
    return sum(map(size_of, path.iterdir())) if path.is_dir() else path.stat().st_size
