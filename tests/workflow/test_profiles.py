"""What the profiles make of the rules; on a cluster itself: tests/slurm."""

import re
import shutil

import pytest
import yaml
from project import ROOT, jobs

SLURM = ROOT / "profiles/slurm"


@pytest.mark.parametrize("path", sorted((ROOT / "workflow/rules").glob("*.smk")), ids=lambda path: path.stem)
def test_every_rule_says_what_it_needs(path):
    rules = re.split(r"^(?:rule|checkpoint) ", path.read_text(), flags=re.MULTILINE)[1:]
    assert all("script:" in rule for rule in rules) or path.stem == "targets"  # which run nothing
    for rule in (rule for rule in rules if "script:" in rule):
        for need in ("threads: ", "mem_mb=", "runtime="):
            assert need in rule, rule.split(":")[0]


@pytest.mark.parametrize("profile", ["default", "slurm"])
def test_every_setting_of_a_profile_has_a_reason(profile):
    lines = (ROOT / "profiles" / profile / "config.yaml").read_text().splitlines()
    settings = [number for number, line in enumerate(lines) if re.match("[a-z]", line)]
    assert len(settings) > 5
    assert [lines[number] for number in settings if not lines[number - 1].startswith("# ")] == []


def resources(printed, rule):
    """What the first job of a rule that a run announced asks for."""
    line = re.search(rf"rule {rule}:.*?resources: ([^\n]*)", printed, flags=re.DOTALL)[1]
    return dict(pair.split("=", 1) for pair in line.split(", "))


def test_neighbours_of_the_sheet_are_one_job_of_a_cluster(project):
    project.profile = SLURM
    printed = project.run("--dry-run", "--forcerun", "find_tissue")
    assert set(re.findall(r"Group job (\w+)", printed)) >= {"prepare_0", "infer_0"}
    assert resources(printed, "map_slide")["gpu"] == "1"
    assert "Group job" not in project.run("--dry-run", "--forcerun", "find_tissue", "--group-components", "other=1")


def test_slides_are_jobs_of_their_own_where_groups_would_take_too_long_to_plan(project, checkout):
    rules = checkout / "workflow/rules/cluster.smk"
    text = rules.read_text()
    assert "MOST_PAIRS = 1_000_000" in text
    rules.write_text(text.replace("MOST_PAIRS = 1_000_000", "MOST_PAIRS = 7"))  # of 4 slides, 2 of them for training, 8
    project.profile = SLURM
    printed = project.run("--dry-run", "--forcerun", "find_tissue")
    assert set(re.findall(r"Group job (\w+)", printed)) == {"prepare_0", "checks_0"}
    assert jobs(printed) >= {f"{rule}:test_1" for rule in ("match_stain", "map_slide", "cut_view", "evaluate_slide")}


def test_a_second_attempt_asks_for_more(project):
    printed = [project.run("--dry-run", "--forcerun", "train", "--attempt", number) for number in "12"]
    first, second = (resources(text, "map_slide") for text in printed)
    assert (first["mem_mb"], first["runtime"]) == ("8000", "60")
    assert (second["mem_mb"], second["runtime"]) == ("16000", "120")
    first, second = (resources(text, "train") for text in printed)
    assert (first["mem_mb"], first["runtime"], second["mem_mb"], second["runtime"]) == (
        "12000",
        "2880",
        "24000",
        "2880",
    )


@pytest.mark.parametrize(("programs", "gpus"), [([], "0"), (["nvidia-smi"], "1")])
def test_a_workstation_runs_one_gpu_job_at_a_time_if_it_has_a_gpu(project, tmp_path, monkeypatch, programs, gpus):
    assert yaml.safe_load((ROOT / "profiles/default/config.yaml").read_text())["resources"] == {"gpu": 1}
    for program in programs:
        (tmp_path / program).write_text("#!/bin/sh\n")
        (tmp_path / program).chmod(0o755)
    (tmp_path / "which").symlink_to(shutil.which("which"))  # without which Snakemake does not start
    monkeypatch.setenv("PATH", str(tmp_path))
    printed = project.run("--dry-run", "--forcerun", "train")
    assert [resources(printed, rule)["gpu"] for rule in ("train", "map_slide")] == [gpus, gpus]


def test_the_workstation_knows_all_jobs_that_could_use_a_gpu():
    """Else those of experiments would run one at a time where there is none."""
    text = "\n".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    rules = re.split(r"^(?:rule|checkpoint|use rule) ", text, flags=re.MULTILINE)[1:]
    asking = {re.match(r"(?:\w+ as )?(\w+)", rule)[1] for rule in rules if " gpu=" in rule}
    copies = {
        copy for name, copy in re.findall(r"^use rule (\w+) as (\w+)", text, flags=re.MULTILINE) if name in asking
    }
    profile = yaml.safe_load((ROOT / "profiles/default/config.yaml").read_text())
    assert len(asking) >= 4
    assert set(profile["set-resources"]) == asking | copies
