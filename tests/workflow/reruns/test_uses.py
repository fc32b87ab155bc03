"""Ways to start the workflow: imported by another one, from outside its checkout, stage by stage."""

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml
from lesionmap.files.records import read_table
from lesionmap.run.costs import job_counts
from lesionmap.run.settings import RunSettings
from project import COHORT, ROOT, TINY, Project, environment, jobs
from snakemake.utils import update_config
from web_server import serving

READABLE = ("train_1", "train_2", "test_1")
IMPORT = """
module lesionmap:
    snakefile: {snakefile}
    config: config
    {more}

use rule * from lesionmap {names}
"""


def snakemake(folder: Path, *arguments: str, ok: bool = True) -> str:
    """Run Snakemake in a folder, with no config but that which `arguments` name; return all that it printed."""
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--workflow-profile", str(ROOT / "profiles/default")]
    done = subprocess.run(
        [*command, *arguments], cwd=folder, capture_output=True, text=True, env=environment(), timeout=600, check=False
    )
    printed = done.stdout + done.stderr
    assert (done.returncode == 0) == ok, printed
    return printed


def import_into(folder: Path, *, snakefile: str = repr(f"{ROOT}/Snakefile"), names: str = "", more: str = "") -> Path:
    """Write a Snakefile that imports the workflow, and the cohort's config."""
    (folder / "config.yaml").write_text(yaml.safe_dump(TINY))
    text = 'configfile: "config.yaml"\n' + IMPORT.format(snakefile=snakefile, names=names, more=more)
    (folder / "Snakefile").write_text(text)
    return folder


def counts(printed: str) -> dict[str, int]:
    """Jobs by rule, of the table that a dry run prints."""
    table = printed.split("Job stats:")[1].split("total")[0]
    return {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", table, flags=re.MULTILINE)}


def test_an_import_with_a_prefix_runs_stage_by_stage_to_the_same_results(finished, tmp_path):
    for part in ("slides", "annotations"):
        shutil.copytree(finished.folder / part, tmp_path / part)
    shutil.copy(finished.folder / "slides.tsv", tmp_path)
    import_into(tmp_path, more='prefix: "lesion"')
    assert "LesionMap: --until find_tissue would do nothing" in snakemake(tmp_path, "--until", "find_tissue", ok=False)
    inspected = {f"inspect_slide:{slide}" for slide in (*READABLE, "unreadable")} | {"build_manifest"}
    printed = snakemake(tmp_path, "tissue")
    assert jobs(printed) == inspected | {f"find_tissue:{slide}" for slide in READABLE} | {"tissue"}
    snakemake(tmp_path)
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} - {".snakemake"} == {
        *("slides", "annotations", "lesion"),
    }
    results, plain = Project(tmp_path / "lesion").results(), finished.results()
    with_seconds = "report/index.html"
    assert results.pop(with_seconds).count(b"<tr>") == plain.pop(with_seconds).count(b"<tr>")
    assert results == plain
    assert "Nothing to be done" in snakemake(tmp_path, "--dry-run")
    snakemake(tmp_path, "review")
    assert (tmp_path / "lesion/results/review/outlines/test_1.geojson").exists()
    assert jobs(snakemake(tmp_path)) == {"compare_with_before", "render_report", "conclude"}
    check_pruning(tmp_path, "lesion")


def check_pruning(folder: Path, prefix: str) -> None:
    """See that nothing below a prefix belongs to a slide that was taken off the sheet and pruned."""
    sheet = (folder / "slides.tsv").read_text().splitlines(keepends=True)
    (folder / "slides.tsv").write_text("".join(row for row in sheet if not row.startswith("test_1\t")))
    of_slide = {path for path in (folder / prefix).rglob("*test_1*") if path.is_file()}
    assert {"test_1.html", "test_1_overlay.png", "test_1.log"} <= {path.name for path in of_slide}
    assert f"name them until a run writes them anew: {prefix}/results/" in snakemake(folder, "prune")
    listed = {row["path"] for row in read_table(folder / prefix / "results/prune.tsv")}
    assert listed >= {str(path.relative_to(folder)) for path in of_slide}
    snakemake(folder, "prune_listed")
    assert list((folder / prefix).rglob("*test_1*")) == []
    (excluded,) = read_table(folder / "slides.excluded.tsv")
    assert (excluded["slide"], excluded["path"], len(excluded["sha256"])) == ("test_1", "slides/test_1.tif", 64)


def test_until_is_refused_where_a_slide_is_to_be_inspected_again(project):
    project.config = TINY | {"tissue": TINY["tissue"] | {"min_area_um2": 600}}
    found = {f"find_tissue:{slide}" for slide in READABLE}
    (project.folder / "slides/test_1.tif").touch()
    assert "--until find_tissue would do nothing, as slides are" in project.run("--until", "find_tissue", ok=False)
    assert jobs(project.run("--until", "build_manifest")) == {"inspect_slide:test_1", "build_manifest"}
    assert jobs(project.run("--until", "find_tissue")) == found


def test_an_import_has_nothing_to_do_where_the_workflow_has_run(project):
    for names in ("", "as lesion_*"):
        printed = snakemake(import_into(project.folder, names=names), "--dry-run")
        assert "Nothing to be done" in printed
        assert "localrules directive specifies rules that are not" not in printed


def test_an_import_may_call_the_checks_at_the_start_and_the_end_of_a_run(project):
    handlers = "\nonstart:\n    lesionmap.check_start()\n\nonerror:\n    lesionmap.show_quarantine_so_far()\n"
    with open(import_into(project.folder) / "Snakefile", "a", encoding="utf-8") as snakefile:
        snakefile.write(handlers + '\nrule broken:\n    shell:\n        "false"\n')
    table = project.folder / "results/quarantine.tsv"
    before = table.read_bytes()
    table.unlink()
    assert "LesionMap, so far: 1 of the sheet's slides in quarantine" in snakemake(project.folder, "broken", ok=False)
    assert table.read_bytes() == before
    later = project.folder / "results/manifest.tsv"
    subprocess.run(["touch", "--date", "+1 day", later], check=True)
    assert "results dated in the future" in snakemake(project.folder, "broken", ok=False)


@pytest.fixture
def repository(checkout, tmp_path, monkeypatch) -> Path:
    """A git repository of the workflow with the tag v1; github("laboratory/lesionmap") leads to it."""
    settings = {f"url.{tmp_path}/server/.insteadOf": "https://github.com/", "user.name": "n", "user.email": "n@example"}
    monkeypatch.setenv("GIT_CONFIG_COUNT", str(len(settings)))
    for number, (key, value) in enumerate(settings.items()):
        monkeypatch.setenv(f"GIT_CONFIG_KEY_{number}", key)
        monkeypatch.setenv(f"GIT_CONFIG_VALUE_{number}", value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("GITHUB_TOKEN", raising=False)
    folder = tmp_path / "server/laboratory/lesionmap"
    shutil.copytree(checkout, folder)
    for command in (("init", "--quiet"), ("add", "."), ("commit", "--quiet", "--message", "all"), ("tag", "v1")):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


def test_the_workflow_is_imported_from_a_server_with_its_library(project, repository):
    assert (repository / "Snakefile").exists()
    source = 'github("laboratory/lesionmap", path="Snakefile", tag="v1")'
    assert "Nothing to be done" in snakemake(import_into(project.folder, snakefile=source), "--dry-run")
    card = project.folder / "results/model/MODEL_CARD.md"
    before = card.read_bytes()
    card.unlink()
    assert jobs(snakemake(project.folder)) == {"describe_model", "render_report", "conclude"}
    assert card.read_bytes() == before


def test_imports_that_would_run_another_library_are_refused(project, checkout):
    folder = project.folder
    with serving(checkout) as server:
        import_into(folder, snakefile=repr(f"{server.address}/Snakefile"))
        printed = snakemake(folder, "--dry-run", ok=False)
    assert "its library would not come along. Remedy: import the Snakefile of a checkout" in printed
    first = import_into(folder, names="as first_*", more='prefix: "first"') / "Snakefile"
    second = IMPORT.format(snakefile=repr(f"{checkout}/Snakefile"), names="as second_*", more="")
    first.write_text(first.read_text() + second.replace("lesionmap", "other"))
    assert "import one version of LesionMap per Snakefile" in snakemake(folder, "--dry-run", ok=False)


def test_defaults_are_the_workflows_own_wherever_it_is_started(project):
    from_outside = ("--snakefile", str(ROOT / "Snakefile"), "--dry-run")
    mine = project.folder / "mine.yaml"
    mine.write_text(yaml.safe_dump(TINY))
    assert "Nothing to be done" in snakemake(project.folder, *from_outside, "--configfile", str(mine))
    alone = (*from_outside, "--replace-workflow-config", "--configfile", str(mine))
    assert "'evaluation' is a required property" in snakemake(project.folder, *alone, ok=False)
    (project.folder / "config").mkdir()
    mine.rename(project.folder / "config/config.yaml")
    assert "Nothing to be done" in snakemake(project.folder, *from_outside)
    mine.write_text("inference: {threshold: 0.4}\n")
    found = {f"{rule}:{slide}" for rule in ("find_lesions", "cut_view") for slide in READABLE}
    foreseen = jobs(snakemake(project.folder, *from_outside, "--configfile", str(mine)))
    assert found <= foreseen
    assert not any(job.startswith(("map_slide", "find_tissue", "train")) for job in foreseen)
    wrong = snakemake(project.folder, *from_outside, "--config", "on_quarantine=many", ok=False)
    assert "on_quarantine: 'many' is not one of" in wrong


STAGES = {  # target: rules that it runs, and a later one
    "slides": ({"build_manifest"}, "find_tissue"),
    "tissue": ({"find_tissue"}, "fit_stain"),
    "annotations": ({"import_annotation", "check_annotation"}, "fit_stain"),
    "stain": ({"compare_stains", "draw_stain"}, "extract_tiles"),
    "tiles": ({"extract_tiles", "summarise_tiles"}, "train"),
    "model": ({"train", "export_model", "describe_model", "plot_learning_curves"}, "map_slide"),
    "maps": ({"map_slide", "find_lesions"}, "cut_view"),
    "metrics": ({"summarise", "plot_metrics"}, "render_report"),
}


def test_each_stage_is_a_target_that_goes_so_far_and_no_further(project):
    assert "Nothing to be done" in project.run("--dry-run", *STAGES)
    for stage, (rules, later) in STAGES.items():
        drawn = set(re.findall(r'label = "(\w+)', project.run(stage, "--dag")))
        assert rules < drawn, stage
        assert later not in drawn, stage


def test_the_doctor_counts_the_jobs_of_a_run(project):
    measured = Counter(
        path.relative_to(project.folder / "results/benchmarks").parts[0].removesuffix(".tsv")
        for path in (project.folder / "results/benchmarks").rglob("*.tsv")
    )
    printed = project.run("doctor", ok=False)  # a slide is cut short
    predicted = json.loads((project.folder / "results/doctor.json").read_text())["jobs"]
    assert predicted == dict(measured) | {"all": 1}
    assert f"{measured.total() + 1} jobs from start to end" in printed


def test_the_doctor_counts_the_jobs_of_other_configs(project):
    shutil.copy(project.folder / "results/model/lesionmap.safetensors", project.folder / "given.safetensors")
    shutil.copytree(project.folder / "results/metrics", project.folder / "other")
    for path in (project.folder / "results").iterdir():
        if path.name not in ("slides", "manifest.tsv", "annotations", "annotations.tsv"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in (project.folder / "results/annotations").glob("*.json"):
        path.unlink()  # of check_annotation
    readable = [(row["split"], row["vendor"]) for row in read_table(str(project.folder / "results/manifest.tsv"))]
    others = {"exports": {"dicom": "always"}, "evaluation": {"compare": {"the same": "other"}}}
    for changes in ({"exports": {"dicom": "never"}}, others, others | {"model": {"path": "given.safetensors"}}):
        project.config = TINY | changes | {"model": TINY["model"] | changes.get("model", {})}
        config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
        update_config(config, project.config)
        expected = job_counts([slide.split for slide in COHORT], readable, RunSettings.of(config))
        inspected = {"inspect_slide", "build_manifest", "import_annotation", "list_annotations"}
        foreseen = counts(project.run("--dry-run", "--quiet", "rules"))
        assert foreseen == {rule: count for rule, count in expected.items() if rule not in inspected}
