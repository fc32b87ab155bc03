import os
import re
import shutil
import socket
import subprocess

import lesionmap.provenance as library
import numpy as np
import pytest
from lesionmap.errors import SlideError
from lesionmap.files import read_json, write_json, written_whole
from lesionmap.logs import job_log
from lesionmap.provenance import code_digest, provenance


@pytest.fixture
def copy_of_scripts(tmp_path, monkeypatch):
    shutil.copytree(library.SCRIPTS, tmp_path / "scripts")
    monkeypatch.setattr(library, "SCRIPTS", tmp_path / "scripts")
    monkeypatch.setattr(library, "PACKAGE", tmp_path / "scripts/lesionmap")
    return tmp_path / "scripts"


def changed_rules(scripts, path, old, new):
    rules = [script.stem for script in scripts.glob("*.py")]
    before = {rule: code_digest(rule) for rule in rules}
    text = (scripts / path).read_text()
    assert old in text
    (scripts / path).write_text(text.replace(old, new))
    return {rule for rule in rules if code_digest(rule) != before[rule]}


def test_comments_docstrings_and_format_do_not_count(copy_of_scripts):
    path = "lesionmap/stain.py"
    assert not changed_rules(copy_of_scripts, path, "I0 = 255.0\n", "# white\nI0   =   255.0\n\n\n")
    assert not changed_rules(copy_of_scripts, path, '    """Tabulate', '    """List')


def test_logic_counts_for_the_rules_that_reach_it(copy_of_scripts):
    found = changed_rules(copy_of_scripts, "lesionmap/stain.py", "I0 = 255.0", "I0 = 250.0")
    assert found == {"extract_tiles", "summarise_tiles", "train", "infer_slide", "render_report"} | {
        *("fit_stain", "choose_reference", "match_stain")
    }


def test_how_annotations_are_read_counts_for_their_import_alone(copy_of_scripts):
    found = changed_rules(copy_of_scripts, "lesionmap/annotation_files.py", "FEWEST_POINTS = 3", "FEWEST_POINTS = 4")
    assert found == {"import_annotation", "doctor"}


def test_what_files_are_said_to_be_counts_for_the_inspection_alone(copy_of_scripts):
    found = changed_rules(copy_of_scripts, "lesionmap/slide_files.py", '"unpack it"', '"unzip it"')
    assert found == {"inspect_slide", "doctor"}


def test_how_jobs_end_reruns_nothing(copy_of_scripts):
    assert not changed_rules(copy_of_scripts, "lesionmap/quarantine.py", "into quarantine.", "to quarantine.")


def test_geometry_counts_for_all_that_measure(copy_of_scripts):
    found = changed_rules(copy_of_scripts, "lesionmap/tiling.py", "/ side_lv0 - 1e-9", "/ side_lv0")
    assert {"find_tissue", "extract_tiles", "infer_slide", "evaluate_slide"} <= found
    assert "conclude" not in found


def test_a_new_look_of_the_overlay_retrains_nothing(copy_of_scripts):
    assert changed_rules(copy_of_scripts, "lesionmap/export.py", "TINT = (255", "TINT = (250") == {"infer_slide"}


def test_what_is_evaluated_retrains_nothing(copy_of_scripts):
    found = changed_rules(copy_of_scripts, "lesionmap/evaluation.py", " & (mask == 0)", "")
    assert found == {"evaluate_slide"}


def test_how_a_cohort_is_summed_up_evaluates_no_slide(copy_of_scripts):
    found = changed_rules(copy_of_scripts, "lesionmap/cohort.py", "AGREEMENT_SD = 1.96", "AGREEMENT_SD = 2")
    assert found == {"summarise", "plot_metrics", "compare_models"}


def test_an_adapter_and_a_template_count(copy_of_scripts):
    assert changed_rules(copy_of_scripts, "find_tissue.py", "output[0]", "output[1]") == {"find_tissue"}
    template = "lesionmap/templates/report/index.html.j2"
    assert changed_rules(copy_of_scripts, template, "Slides", "All slides") == {"render_report"}
    card = "lesionmap/templates/model_card/model_card.md.j2"
    assert changed_rules(copy_of_scripts, card, "What it is", "What this is") == {"describe_model"}


def test_another_look_of_card_and_curves_retrains_nothing(copy_of_scripts):
    found = changed_rules(copy_of_scripts, "lesionmap/model_card.py", "LISTED = 100", "LISTED = 50")
    assert found == {"describe_model"}
    found = changed_rules(copy_of_scripts, "lesionmap/learning_curves.py", '"val": "--"', '"val": ":"')
    assert found == {"plot_learning_curves", "render_report"}


def test_what_a_new_model_records_concerns_no_model_that_is_there(copy_of_scripts):
    found = changed_rules(copy_of_scripts, "lesionmap/training_facts.py", "THRESHOLD = 0.5", "THRESHOLD = 0.4")
    assert found == {"train"}


def test_the_record_names_software_code_and_versions():
    record = provenance("abc", identity="f" * 64)
    assert record["code"] == "abc"
    assert record["identity"] == "f" * 64
    assert re.match(r"LesionMap \d", record["software"])
    assert record["versions"]["numpy"] == np.__version__


def test_a_failed_write_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", {"old": True})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"new": float("nan")})
    with pytest.raises(RuntimeError), written_whole(tmp_path / "a.json") as draft:
        draft.write_text("half")
        raise RuntimeError
    assert read_json(tmp_path / "a.json") == {"old": True}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_the_draft_of_a_dead_writer_is_removed_and_that_of_a_living_one_kept(tmp_path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    host = socket.gethostname()
    left, kept = (tmp_path / f".a.{host}-{number}.json" for number in (dead.pid, os.getppid()))
    for draft in (left, kept):
        draft.write_text("half")
    write_json(tmp_path / "a.json", {})
    assert not left.exists()
    assert kept.exists()


def test_a_users_error_is_one_line_without_traceback(tmp_path):
    log = tmp_path / "job.log"
    with pytest.raises(SystemExit) as raised, job_log(str(log)):
        raise SlideError(slide="s1", stage="fit_stain", finding="it is blue", remedy="look at it")
    assert str(raised.value) == "LesionMap: slide s1, fit_stain: it is blue. Remedy: look at it."
