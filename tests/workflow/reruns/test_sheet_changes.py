"""What the slide sheet may look like, and what becomes of slides that are taken off it; copies of a project."""

import os
import re
import subprocess
import sys
import time

from lesionmap.files.records import read_table
from project import ROOT, Project, environment, jobs

PER_COHORT = {"summarise", "plot_metrics", "list_quarantine", "list_findings", "render_report", "conclude"}
WITH_HARD_LINKS = re.search(
    r"```\n(cp -al project trial\n.*?)```", (ROOT / "docs/cluster.md").read_text(encoding="utf-8"), re.DOTALL
)


def planned(project, *targets, config=()):
    """Jobs of a dry run, with settings of the command line, and what it printed."""
    command = [*project.command("--dry-run", *targets), *(("--config", *config) if config else ())]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    return jobs(done.stdout), done.stdout + done.stderr


def without(project, *slides):
    """Take slides off the sheet."""
    sheet = project.folder / "slides.tsv"
    lines = sheet.read_text().splitlines(keepends=True)
    sheet.write_text("".join(line for line in lines if line.split("\t")[0] not in slides))


def of_slides(project, *slides):
    """All paths of results and logs that have the name of a slide, but for parts of folders with that name."""
    paths = [
        path.relative_to(project.folder) for top in ("results", "logs") for path in (project.folder / top).rglob("*")
    ]
    return {str(path) for path in paths if any(re.match(rf"\.?{slide}(?![A-Za-z0-9-])", path.name) for slide in slides)}


def test_a_sheet_from_a_spreadsheet_and_settings_of_the_command_line_change_nothing(project):
    """Quotes, notes over two lines and an extra column; each look at it is a dry run."""
    sheet = project.folder / "slides.tsv"
    head, *rows = sheet.read_text().splitlines()
    noted = [f"{head}\tLIMS note", *(f'{row}\t"of 12"" glass,\nno {n}"' for n, row in enumerate(rows))]
    sheet.write_text("\r\n".join(noted).replace("slides/train_1.tif", '"slides/train_1.tif"') + "\r\n")
    found, printed = planned(project)
    assert "it has a column 'LIMS note'" in printed
    assert not found
    project.config["slides"]["ignored_columns"] = ["LIMS *"]
    assert planned(project)[0] == {"render_report", "conclude"}  # the report shows the whole config
    sheet.write_text("\n".join([head, *rows]) + "\n")
    del project.config["slides"]["ignored_columns"]
    assert planned(project, config=["train={epochs: 1}", "model={path: null}"])[0] == set()
    assert "train" in planned(project, config=["train={epochs: 2}"])[0]


def test_what_is_not_there_is_told_with_a_remedy(project):
    found, printed = planned(project, "results/lesions/tran_2/lesions.tif")
    assert "no slide 'tran_2' in the sheet. Remedy: name one of its 4, e.g. train_2" in printed
    assert "KeyError" not in printed
    project.config["model"]["path"] = "shipped.safetensors"
    project.config["evaluation"] = {"compare": {"old": "nowhere"}}
    found, printed = planned(project)
    assert "model.path: there is no file shipped.safetensors" in printed
    assert "evaluation.compare: there is no folder nowhere (old)" in printed
    assert not found
    with open(project.folder / "slides.tsv", "a") as sheet:
        sheet.write("Train_1\tslides/train_1.tif\tinference\t\t\n")
    del project.config["model"]["path"], project.config["evaluation"]
    assert "lines 2 and 6, slide: train_1 and Train_1 differ in case only" in planned(project)[1]


def test_a_slide_that_is_taken_off_leaves_the_report_then_the_results_and_does_not_come_back(project):
    """A training slide and a test slide, whose consent was withdrawn."""
    gone = ("train_2", "test_1")
    before = project.results()
    without(project, *gone)
    assert "made with train_2 and names them" in project.run("prune")
    listed = {row["path"] for row in read_table(project.folder / "results/prune.tsv")}
    maps = {f"results/lesions/{slide}" for slide in gone}
    in_maps = {str(path.relative_to(project.folder)) for name in maps for path in (project.folder / name).iterdir()}
    assert listed == of_slides(project, *gone) - maps | in_maps
    assert {name: content for name, content in project.results().items() if name != "prune.tsv"} == before
    trained = {
        "build_manifest",
        "list_annotations",
        "train",
        "publish_model",
        "export_model",
        "plot_learning_curves",
        "describe_model",
        "summarise_tiles",
        "compare_stains",
    }
    assert project.planned() == trained | PER_COHORT | {
        f"{rule}:train_1" for rule in ("map_slide", "find_lesions", "cut_view")
    }
    assert not {path for path in of_slides(project, *gone) if path.startswith("results/report/")}
    assert all("test_1" not in path.read_text() for path in (project.folder / "results/report").rglob("*.html"))
    after = project.results()
    stay = "lesions/test_1/probability.ome.tif"
    assert after[stay] == before[stay]
    project.run("prune_listed")
    assert of_slides(project, *gone) == set()
    names = (name for name in after if name != "prune.tsv" and not any(slide in name for slide in gone))
    assert {name: project.results()[name] for name in names if name in after}.items() <= after.items()
    assert "Nothing to be done" in project.run()

    for path in (project.folder / "slides").iterdir():
        os.utime(path, (time.time() - 7200,) * 2)
    (project.folder / "slides/test_1.tif").rename(project.folder / "slides/renamed.tif")
    (project.folder / "slides/train_1.tif").rename(project.folder / "slides/archived.tif")
    command = [sys.executable, "-m", "lesionmap.run.new_slides", "slides.tsv", "slides"]
    library = environment() | {"PYTHONPATH": str(ROOT / "scripts")}
    done = subprocess.run(command, cwd=project.folder, capture_output=True, text=True, env=library, check=True)
    assert "0 slides of slides are new" in done.stdout
    assert "renamed.tif is left out: it was taken off the sheet (test_1)" in done.stdout
    assert "train_2.tif is left out: it was taken off the sheet (train_2)" in done.stdout
    rows = read_table(project.folder / "slides.tsv")
    assert [row["slide"] for row in rows] == ["train_1", "unreadable"]
    assert rows[0]["path"] == str(project.folder / "slides/archived.tif")


def test_nothing_is_pruned_while_another_run_goes_on(project):
    without(project, "test_1")
    locks = project.folder / ".snakemake/locks"
    project.run("prune")
    locks.mkdir(exist_ok=True)
    (locks / "0.output.lock").write_text("results/conclusion.txt\n")  # as a run holds it, or left when it was killed
    assert "another run is going on in this folder" in project.run("prune_listed", ok=False)
    assert "results/slides/test_1.json" in of_slides(project, "test_1")


def test_a_copied_project_and_its_original_leave_each_other_alone(project):
    """The ways of docs/cluster.md; with hard links of everything, the original would run again."""
    whole, trial = (Project(project.folder.parent / name) for name in ("whole", "trial"))
    ways = "cp -a --reflink=auto project whole\n" + WITH_HARD_LINKS[1]
    subprocess.run(["bash", "-ec", ways], cwd=project.folder.parent, check=True)
    shared = "results/tiles/train_1.h5"
    assert (trial.folder / shared).samefile(project.folder / shared)
    assert whole.foreseen() == set()
    (trial.folder / "config.yaml").unlink()  # which the test would write in place
    before = {path: path.read_bytes() for path in project.folder.rglob("*") if path.is_file()}
    trial.config["train"]["epochs"] = 2
    assert "train" in trial.planned()
    assert {path: path.read_bytes() for path in before} == before
    assert project.foreseen() == trial.foreseen() == set()
