import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import lesionmap.jobs.provenance as library
import numpy as np
import pytest
from lesionmap.jobs.provenance import code_digest, commit, provenance, versions

RULES = [script.stem for script in library.SCRIPTS.glob("*.py")]
TABLE = json.loads(Path(__file__).with_name("digests.json").read_text(encoding="utf-8"))


@pytest.fixture
def copy_of_scripts(tmp_path, monkeypatch):
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(library.SCRIPTS, tmp_path / "scripts", ignore=ignored)
    monkeypatch.setattr(library, "SCRIPTS", tmp_path / "scripts")
    monkeypatch.setattr(library, "PACKAGE", tmp_path / "scripts/lesionmap")
    return tmp_path / "scripts"


def changed_rules(scripts, path, old, new):
    before = {rule: code_digest(rule) for rule in RULES}
    text = (scripts / path).read_text()
    assert old in text
    (scripts / path).write_text(text.replace(old, new))
    return {rule for rule in RULES if code_digest(rule) != before[rule]}


def test_comments_docstrings_format_and_import_lines_do_not_count(copy_of_scripts):
    path = "lesionmap/stain/profile.py"
    assert not changed_rules(copy_of_scripts, path, "I0 = 255.0\n", "# white\nI0   =   255.0\n\n\n")
    assert not changed_rules(copy_of_scripts, path, '    """The stain profile of', '    """A stain profile of')
    assert not changed_rules(copy_of_scripts, path, "import numpy as np\n", "import os\nimport numpy as np\n")


def test_logic_counts_for_the_rules_that_reach_it(copy_of_scripts):
    found = changed_rules(copy_of_scripts, "lesionmap/stain/profile.py", "I0 = 255.0", "I0 = 250.0")
    assert found == {
        *("fit_stain", "choose_reference", "match_stain", "draw_stain", "compare_stains"),
        *("extract_tiles", "train", "map_slide", "map_ensemble", "cut_view", "render_report", "doctor"),
    }


def test_how_annotations_are_read_counts_for_their_import_alone(copy_of_scripts):
    path = "lesionmap/annotations/content.py"
    assert changed_rules(copy_of_scripts, path, "FEWEST_POINTS = 3", "FEWEST_POINTS = 4") == {
        "import_annotation",
        "import_second_annotation",
        "doctor",
        "review",
    }


def test_what_files_are_said_to_be_counts_for_the_inspection_alone(copy_of_scripts):
    path = "lesionmap/slides/file_checks.py"
    assert changed_rules(copy_of_scripts, path, '"unpack it"', '"unzip it"') == {"inspect_slide", "doctor"}


def test_how_jobs_end_reruns_nothing(copy_of_scripts):
    assert not changed_rules(copy_of_scripts, "lesionmap/jobs/quarantine.py", "into quarantine.", "to quarantine.")


def test_geometry_counts_for_all_that_measure(copy_of_scripts):
    found = changed_rules(copy_of_scripts, "lesionmap/geometry/tiling.py", "/ side_lv0 - 1e-9", "/ side_lv0")
    assert {"find_tissue", "extract_tiles", "map_slide"} <= found
    assert "conclude" not in found


def test_a_new_look_reruns_what_draws_and_nothing_that_computes(copy_of_scripts):
    found = changed_rules(copy_of_scripts, "lesionmap/viewer/overlay.py", "weight = 0.6", "weight = 0.5")
    assert found == {"cut_view"}
    found = changed_rules(copy_of_scripts, "lesionmap/plotting.py", "#0072B2", "#0072B3")
    assert found == {"draw_stain", "plot_learning_curves", "plot_metrics", "plot_variants", "render_report"}


def test_how_training_goes_maps_no_slide_anew(copy_of_scripts):
    for module, old, new in (
        ("settings", "epochs: int = 50", "epochs: int = 51"),
        ("loss", "(mask != IGNORE).sum()", "(mask == IGNORE).sum()"),
        ("augmentation", "integers(4)", "integers(3)"),
        ("best_epoch", "max(index", "min(index"),
    ):
        found = changed_rules(copy_of_scripts, f"lesionmap/training/{module}.py", old, new)
        assert "train" in found
        assert not found & {"map_slide", "find_lesions", "extract_tiles", "evaluate_slide"}


def test_what_is_evaluated_retrains_nothing(copy_of_scripts):
    found = changed_rules(
        copy_of_scripts, "lesionmap/evaluation/evaluate.py", "ROWS_AT_ONCE = 256", "ROWS_AT_ONCE = 255"
    )
    assert found == {"evaluate_slide"}


def test_how_a_cohort_is_summed_up_evaluates_no_slide(copy_of_scripts):
    module = "lesionmap/metrics/slide_table.py"
    found = changed_rules(copy_of_scripts, module, "AGREEMENT_SD = 1.96", "AGREEMENT_SD = 2")
    compared = {"compare_models", "compare_with_before", "compare_variants"}
    assert found == {"summarise", "plot_metrics", "render_report"} | compared


def test_an_adapter_and_a_template_count(copy_of_scripts):
    assert changed_rules(copy_of_scripts, "find_tissue.py", "output[0]", "output[1]") == {"find_tissue"}
    template = "lesionmap/report/templates/render/index.html.j2"
    assert changed_rules(copy_of_scripts, template, "Slides", "All slides") == {"render_report"}
    card = "lesionmap/report/templates/model_card/model_card.md.j2"
    assert changed_rules(copy_of_scripts, card, "What it is", "What this is") == {"describe_model", "render_report"}


def test_another_look_of_card_and_curves_retrains_nothing(copy_of_scripts):
    found = changed_rules(copy_of_scripts, "lesionmap/report/model_card.py", "LISTED = 100", "LISTED = 50")
    assert found == {"describe_model", "render_report"}
    found = changed_rules(copy_of_scripts, "lesionmap/training/learning_curves.py", '"val": "--"', '"val": ":"')
    assert found == {"plot_learning_curves", "plot_variants", "render_report"}


def test_what_a_new_model_records_concerns_no_model_that_is_there(copy_of_scripts):
    found = changed_rules(copy_of_scripts, "lesionmap/training/publication.py", "THRESHOLD = 0.5", "THRESHOLD = 0.4")
    assert found == {"train"}


IMPORTS = [
    "from lesionmap.geometry import extra\nx = extra.SIDE",
    "from lesionmap.geometry import extra as other\nx = other.SIDE",
    "from lesionmap.geometry.extra import SIDE\nx = SIDE",
    "from lesionmap.geometry.extra import *",
    "import lesionmap.geometry.extra",
    "import lesionmap.geometry.extra as other\nx = other.SIDE",
    "from ..geometry import extra\nx = extra.SIDE",
    "from ..geometry.extra import SIDE as y\nx = y",
    "def f():\n    from lesionmap.geometry.extra import SIDE\n\n    return SIDE",
]


@pytest.mark.parametrize("code", IMPORTS)
def test_every_form_of_import_is_followed(copy_of_scripts, code):
    (copy_of_scripts / "lesionmap/geometry/extra.py").write_text("SIDE = 1\n")
    with open(copy_of_scripts / "lesionmap/lesions/dicom.py", "a") as stream:
        stream.write(f"\n\n{code}\n")
    assert changed_rules(copy_of_scripts, "lesionmap/geometry/extra.py", "1", "2") == {"write_dicom"}


@pytest.mark.parametrize("code", ["from lesionmap.geometry.nowhere import x", "from lesionmap import nowhere as x"])
def test_an_import_that_leads_to_no_file_is_refused(copy_of_scripts, code):
    with open(copy_of_scripts / "lesionmap/lesions/dicom.py", "a") as stream:
        stream.write(f"\n\n{code}\ny = x\n")
    with pytest.raises(ModuleNotFoundError, match=r"nowhere.* is imported, but there is no such module"):
        code_digest("write_dicom")


def test_another_origin_of_the_same_name_counts(copy_of_scripts):
    path = "lesionmap/lesions/postprocessing.py"
    elsewhere = "from scipy.ndimage import uniform_filter as gaussian_filter"
    found = changed_rules(copy_of_scripts, path, "from scipy.ndimage import gaussian_filter", elsewhere)
    assert found == {"find_lesions"}


@pytest.mark.parametrize(
    ("old", "new"),
    [("geometry/tiling", "geometry/boxes"), ("stain/fit", "tissue/stain_fit"), ("report/model_card", "report/card")],
)
def test_a_module_that_is_moved_reruns_nothing(copy_of_scripts, old, new):
    before = {rule: code_digest(rule) for rule in RULES}
    package = copy_of_scripts / "lesionmap"
    (package / f"{old}.py").rename(package / f"{new}.py")
    templates = package / f"{Path(old).parent}/templates/{Path(old).name}"
    if templates.exists():
        templates.rename(templates.with_name(Path(new).name))
    (folder, name), (new_folder, new_name) = old.split("/"), new.split("/")
    for path in copy_of_scripts.rglob("*.py"):
        text = path.read_text().replace(f"lesionmap.{folder}.{name} ", f"lesionmap.{new_folder}.{new_name} ")
        alone = rf"from lesionmap\.{folder} import {name}\b"
        path.write_text(re.sub(alone, f"from lesionmap.{new_folder} import {new_name} as {name}", text))
    assert {rule: code_digest(rule) for rule in RULES} == before


@pytest.mark.parametrize("module", ["report.render", "run.doctor", "training.processes", "slides.inspection"])
def test_all_that_a_module_loads_is_reached(module):
    """Python's own imports, against the imports that the digest follows."""
    command = f"import sys, lesionmap.{module}; print(*(name for name in sys.modules if name.startswith('lesionmap.')))"
    environment = os.environ | {"PYTHONPATH": str(library.SCRIPTS)}
    printed = subprocess.run([sys.executable, "-c", command], env=environment, capture_output=True, text=True).stdout
    loaded = {library._file(name) for name in printed.split()}
    reached = {}
    library._digest(library._file(f"lesionmap.{module}"), reached)
    uncounted = {library.SCRIPTS / path for path in library.NO_RESULTS}
    beyond = {path for path in loaded if path.name == "__init__.py"} | uncounted
    assert len(loaded - beyond) > 5
    assert loaded - beyond <= reached.keys()


@pytest.mark.parametrize("name", TABLE)
def test_digests_are_the_same_in_all_versions_of_python(name):
    """The table was computed by Python 3.11, 3.12 and 3.13."""
    logic = library._logic(TABLE[name]["source"], "lesionmap.stain")
    assert [library._sha256(logic.text)[:16], logic.used] == [TABLE[name]["digest"], TABLE[name]["used"]]


@pytest.mark.parametrize("python", ["python3.12", "python3.13", "python3.14"])
def test_another_python_finds_the_same_digests_of_all_rules(python):
    program = shutil.which(python)
    if not program or subprocess.run([program, "--version"], capture_output=True).returncode:
        pytest.skip(f"there is no {python} here")
    command = f"from lesionmap.jobs.provenance import *; print(*(code_digest(rule) for rule in {RULES}))"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(library.SCRIPTS), "PYTHONDONTWRITEBYTECODE": "1"}
    printed = subprocess.run([program, "-c", command], env=environment, capture_output=True, text=True, check=True)
    assert printed.stdout.split() == [code_digest(rule) for rule in RULES]


def test_the_record_names_software_code_and_versions():
    record = provenance("abc", identity="f" * 64)
    assert record["code"] == "abc"
    assert record["identity"] == "f" * 64
    assert re.match(r"LesionMap \d", record["software"])
    assert record["versions"]["numpy"] == np.__version__


def git(folder, *arguments):
    name = ("-c", "user.name=someone", "-c", "user.email=someone@example.org")
    command = ["git", "-C", folder, *name, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_is_that_of_the_checkout_and_says_if_files_were_changed(tmp_path):
    git(tmp_path, "init")
    (tmp_path / "file").write_text("as committed")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "--message", "first")
    git(tmp_path, "tag", "v1")
    head = git(tmp_path, "rev-parse", "HEAD")[:12]
    assert commit(tmp_path) == head
    (tmp_path / "file").write_text("changed")
    assert commit(tmp_path) == f"{head}-dirty"


def test_without_a_checkout_there_is_no_commit(tmp_path):
    assert commit(tmp_path) is None


def test_versions_are_those_that_are_installed():
    assert versions()["torch"] == version("torch")
