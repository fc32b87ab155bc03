"""What one job on a cluster makes of the workflow: a Snakemake of its own that is told rule and slide."""

import re

import pytest


def job(project, rule, *slide):
    """What a node is told to do for one job, as Snakemake's executors tell it."""
    target = f"{rule}:" + "".join(f"slide={name}" for name in slide)
    told = ["--target-jobs", target, "--allowed-rules", rule, "--mode", "remote"]
    return [*told, "--force", "--nolock", "--ignore-incomplete", "--cores", "1"]


@pytest.mark.parametrize(
    "rule", ["find_tissue", "match_stain", "extract_tiles", "map_slide", "find_lesions", "cut_view"]
)
def test_it_plans_its_own_rule_and_nothing_that_came_before(project, rule):
    drawn = project.run(*job(project, rule, "train_2"), "--dag")
    assert re.findall(r'label = "(\w+)', drawn) == [rule]


def test_training_is_told_all_tile_stores(project):
    printed = project.run(*job(project, "train"), "--dry-run")
    assert "input: results/tiles/train_1.h5, results/tiles/train_2.h5\n" in printed


def test_it_makes_what_a_run_on_one_machine_makes(project):
    before = project.results()
    (project.folder / "results/metrics/summary.json").unlink()
    (project.folder / "results/stain/matches/test_1.json").unlink()
    for of in (("match_stain", "test_1"), ("summarise",)):
        project.run(*job(project, *of))
    assert project.results() == before
