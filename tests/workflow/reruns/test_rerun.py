"""What a change makes run again, and what it does not."""

import json
import os
import re
import shutil
import time
from dataclasses import replace

import h5py
import numpy as np
import pytest
from lesionmap.demo.cohort import write_slide
from lesionmap.demo.painting import DemoSlide
from lesionmap.files.records import read_table
from project import COHORT, ROOT, jobs
from safetensors.numpy import load_file

LATER = ("check_annotation", "draw_stain", "map_slide", "find_lesions", "cut_view")
PER_COHORT = {"summarise", "plot_metrics", "list_quarantine", "list_findings", "render_report", "conclude"}
ALL_SLIDES = ("train_1", "train_2", "test_1")


def of(rule, *slides):
    return {f"{rule}:{slide}" for slide in slides}


def after_training():
    trained = {"train", "publish_model", "export_model", "plot_learning_curves", "describe_model", "summarise_tiles"}
    return trained | of("map_slide", *ALL_SLIDES) | after_mapping()


def after_mapping():
    found = of("find_lesions", *ALL_SLIDES) | of("cut_view", *ALL_SLIDES)
    return found | of("evaluate_slide", "test_1") | PER_COHORT


def normalised_anew():
    matched = {"choose_reference", "compare_stains"} | of("match_stain", *ALL_SLIDES) | of("draw_stain", *ALL_SLIDES)
    return matched | of("extract_tiles", "train_1", "train_2") | after_training()


def added(project, slide):
    """Add a slide to the cohort; its own jobs."""
    with open(project.folder / "slides.tsv", "a", encoding="utf-8") as sheet:
        sheet.write(write_slide(project.folder, None, slide))
    rules = [
        "inspect_slide",
        "find_tissue",
        "fit_stain",
        "match_stain",
        "draw_stain",
        "map_slide",
        "find_lesions",
        "cut_view",
    ]
    if slide.split == "train":
        rules += ["import_annotation", "check_annotation", "extract_tiles"]
    return {f"{rule}:{slide.name}" for rule in rules}


def test_a_second_run_has_nothing_to_do(project):
    assert "Nothing to be done" in project.run()


def test_a_touched_slide_is_inspected_and_no_more(project):
    slide = project.folder / "slides/train_1.tif"
    assert slide.stat().st_size > 1_000_000  # above which Snakemake goes by time, not by checksum
    slide.touch()
    planned = project.planned()
    assert {"inspect_slide:train_1", "build_manifest"} == planned
    assert "Nothing to be done" in project.run()


def test_a_changed_annotation_reruns_its_slide_and_the_training(project):
    path = project.folder / "annotations/train_1.geojson"
    content = json.loads(path.read_text())
    content["features"] = content["features"][:1]
    path.write_text(json.dumps(content))
    project.config["tiles"]["store"] = "temp"  # which by itself reruns nothing
    expected = {f"{rule}:train_1" for rule in ("import_annotation", "check_annotation", "extract_tiles")}
    expected |= {"list_annotations"} | after_training()
    assert project.planned() == expected
    assert not list(project.folder.glob("results/tiles/*.h5"))


def test_a_new_inference_slide_runs_its_own_jobs_and_no_training(project):
    project.config["tiles"]["store"] = "temp"
    for store in project.folder.glob("results/tiles/*.h5"):
        store.unlink()  # as training does
    own = added(project, DemoSlide("new_1", 1000, 700, 9, "inference"))
    planned = project.planned()
    assert own | {"build_manifest", "compare_stains", "render_report", "conclude"} <= planned
    assert planned - own <= {"build_manifest", "compare_stains"} | PER_COHORT


def test_without_stored_images_the_same_model_is_trained(project):
    model = project.folder / "results/model/lesionmap.safetensors"
    before = load_file(model)
    project.config["tiles"]["store"] = "none"
    assert of("extract_tiles", "train_1", "train_2") | {"train", "publish_model"} == jobs(
        project.run(str(model.relative_to(project.folder)))
    )
    with h5py.File(project.folder / "results/tiles/train_1.h5") as store:
        assert "image" not in store["high"]
    after = load_file(model)
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_how_metrics_are_summed_up_evaluates_no_slide(project):
    project.config["evaluation"] = {"min_lesion_um": 0}
    assert project.planned() == {"summarise", "plot_metrics", "list_findings", "render_report", "conclude"}


def test_subgroups_are_summed_up_from_what_was_evaluated(project):
    sheet = project.folder / "slides.tsv"
    summed_up = {"summarise", "plot_metrics", "list_findings", "render_report", "conclude"}
    text = re.sub(r"$", "\tA", sheet.read_text().rstrip("\n"), flags=re.MULTILINE).replace("\tA", "\tscanner", 1) + "\n"
    sheet.write_text(text)
    project.config["evaluation"] = {"groups": ["scanner", "stain"]}
    assert project.planned() == summed_up
    table = read_table(project.folder / "results/metrics/groups.tsv")
    (scanner,) = {row["group_value"] for row in table if row["group"] == "scanner"}
    assert scanner == "A"
    verdict = json.loads((project.folder / "results/stain/matches/test_1.json").read_text())["fitted"]["verdict"]
    assert {row["group_value"] for row in table if row["group"] == "stain"} == {verdict}
    sheet.write_text(re.sub(r"^(train_1.*)A$", r"\1B", text, flags=re.MULTILINE))
    assert project.foreseen() == set()
    sheet.write_text(re.sub(r"^(test_1.*)A$", r"\1", text, flags=re.MULTILINE))
    assert project.planned() == summed_up
    assert "not stated" in (project.folder / "results/report/index.html").read_text()


def test_what_is_shown_in_full_resolution_cuts_views_and_no_more(project):
    project.config["report"] = {"detail": "none"}
    views = project.folder / "results/report/views"
    assert list((views / "test_1/slide").glob("1/*.js"))
    expected = of("cut_view", *ALL_SLIDES) | {"list_quarantine", "list_findings", "render_report", "conclude"}
    assert project.planned() == expected
    assert not list((views / "test_1/slide").glob("1/*.js"))
    assert "Nothing to be done" in project.run()


def test_another_model_is_put_beside_this_one(project):
    shutil.copytree(project.folder / "results/metrics", project.folder / "other")
    project.config["evaluation"] = {"compare": {"the same": "other"}}
    assert project.planned() == {"compare_models", "render_report", "conclude"}
    assert "the same" in (project.folder / "results/metrics/models.tsv").read_text()
    assert "Nothing to be done" in project.run()


def test_a_patient_named_in_the_sheet_makes_its_evaluated_slide_be_evaluated_again(project):
    sheet = project.folder / "slides.tsv"
    head, *rows = sheet.read_text().splitlines()
    sheet.write_text("\n".join([f"{head}\tpatient", *(f"{row}\tp {n}" for n, row in enumerate(rows))]) + "\n")
    assert project.planned() == of("evaluate_slide", "test_1") | PER_COHORT


def test_a_stain_parameter_reruns_stain_and_what_follows(project):
    project.config["stain"]["n_pixels"] = 15000
    assert project.foreseen() == of("fit_stain", *ALL_SLIDES) | normalised_anew()


def test_another_reference_reruns_the_normalisation_and_no_fit(project):
    project.config["stain"]["reference"] = "train_2"
    assert project.planned() == normalised_anew()
    assert "Nothing to be done" in project.run()


def test_every_job_that_computes_with_a_match_waits_for_the_choice_of_the_reference():
    texts = [path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk")]
    rules = [rule for text in texts for rule in re.split(r"^(?:use )?rule ", text, flags=re.MULTILINE)[1:]]
    reading = {
        rule.split()[0].strip(":"): rule
        for rule in rules
        if re.search(r'input:.*"results/stain/matches.*output:', rule, re.DOTALL)
    }
    assert len(reading) >= 7
    waiting = {
        name for name, rule in reading.items() if 'choice=ancient("results/stain/reference/profile.json")' in rule
    }
    assert set(reading) - waiting == {"summarise", "list_findings", "render_report"}  # which wait for maps


def test_a_reference_that_stays_the_same_is_reported_and_reruns_nothing_else(project):
    project.config["stain"]["reference"] = "auto"  # of two, both are as far from the median: the first
    assert project.planned() == {"choose_reference", "render_report", "conclude"}


@pytest.mark.parametrize(("like", "chosen"), [(COHORT[0], "train_1"), (COHORT[1], "train_2")])
def test_a_new_training_slide_leaves_the_others_as_they_are_while_the_choice_stays(project, like, chosen):
    project.config["stain"]["reference"] = "auto"
    stores = [f"results/tiles/{slide}.h5" for slide in ("train_1", "train_2")]
    project.run(*stores)  # chooses train_1
    own = added(project, replace(like, name="new_1"))  # draws the median to its stain
    stores.append("results/tiles/new_1.h5")
    expected = own - {f"{rule}:new_1" for rule in LATER} | {"build_manifest", "choose_reference"}
    if chosen != "train_1":
        expected |= of("match_stain", "train_1", "train_2") | of("extract_tiles", "train_1", "train_2")
    assert project.planned(*stores) == expected
    assert json.loads((project.folder / "results/stain/reference/profile.json").read_text())["slide"] == chosen
    assert "Nothing to be done" in project.run(*stores)


def test_a_shipped_profile_gives_the_same_tiles_as_its_slide(project):
    shipped = shutil.copy(project.folder / "results/stain/reference/profile.json", project.folder / "shipped.json")
    project.config["stain"]["reference"] = shipped.name
    before = project.results()
    project.run("results/tiles/train_1.h5", "results/tiles/train_2.h5")
    after = project.results()
    assert after["stain/reference/tissue.png"] != before["stain/reference/tissue.png"], "there is tissue to show"
    for name in ("tiles/train_1.h5", "tiles/train_2.h5", "stain/reference/profile.json"):
        assert after[name] == before[name]


def test_another_limit_matches_anew_and_reruns_only_what_it_changes(project):
    project.config["stain"]["ratio_limits"] = [0.1, 10]
    assert project.planned() == normalised_anew() - {"choose_reference"}


def test_a_fresh_checkout_reruns_nothing(project, checkout):
    future = time.time() + 60
    for path in checkout.rglob("*"):
        os.utime(path, (future, future))
    assert "Nothing to be done" in project.run()


def test_a_comment_in_the_library_reruns_nothing(project, checkout):
    for name in ("stain/table.py", "slides/slide.py", "training/loop.py"):
        path = checkout / "scripts/lesionmap" / name
        path.write_text("# a remark\n" + path.read_text().replace('"""', '"""Indeed. ', 1))
    assert "Nothing to be done" in project.run()


def test_new_logic_in_stain_reruns_stain_and_what_follows(project, checkout):
    path = checkout / "scripts/lesionmap/stain/separation.py"
    text = path.read_text()
    assert "FIT_ITERATIONS = 100" in text
    path.write_text(text.replace("FIT_ITERATIONS = 100", "FIT_ITERATIONS = 50"))
    assert project.foreseen() == of("fit_stain", *ALL_SLIDES) | normalised_anew()


def changed(checkout, path, old, new):
    """Change one module of the library."""
    text = (checkout / "scripts/lesionmap" / path).read_text()
    assert old in text
    (checkout / "scripts/lesionmap" / path).write_text(text.replace(old, new))


def test_another_tint_of_the_overlay_reruns_what_draws_it(project, checkout):
    before = project.results()
    changed(checkout, "viewer/overlay.py", "weight = 0.6", "weight = 0.3")
    assert project.planned() == of("cut_view", *ALL_SLIDES) | {
        "list_quarantine",
        "list_findings",
        "render_report",
        "conclude",
    }
    after = project.results()
    assert after["lesions/test_1/overlay.png"] != before["lesions/test_1/overlay.png"]
    computed = ("stain/matches/test_1.json", "lesions/test_1/probability.ome.tif", "lesions/test_1/lesions.geojson")
    assert all(after[name] == before[name] for name in computed)


def test_exports_that_fail_hold_up_nothing_and_are_tried_again_once_the_code_is_mended(project, checkout):
    """Errors that nobody foresaw, of one slide: in its DICOM file, its view and its stain pictures."""
    faults = {
        "lesions/dicom.py": ("    with MapFile(lesions_map)", "AttributeError('ContributionDateTime')"),
        "viewer/view.py": ("    ladder = ZoomLadder(info.size_lv0", "KeyError('x')"),
        "stain/plots.py": ("    draw_match(picture", "ZeroDivisionError('0; 1')"),
    }
    slide = {"lesions/dicom.py": "info.slide", "viewer/view.py": "info.slide", "stain/plots.py": "picture"}
    whole = {path: (checkout / "scripts/lesionmap" / path).read_text() for path in faults}
    for path, (line, error) in faults.items():
        changed(checkout, path, line, f"    if 'test_1' in {slide[path]}:\n        raise {error}\n{line}")
    project.config |= {"exports": {"dicom": "always"}, "on_quarantine": "fail_at_end"}
    printed = project.run(ok=False)
    assert "everything else is done, except for 1 slide in quarantine and 3 failed exports" in printed
    rows = read_table(project.folder / "results/failed_exports.tsv")
    assert {(row["slide"], row["stage"]) for row in rows} == {
        ("test_1", rule) for rule in ("write_dicom", "cut_view", "draw_stain")
    }
    assert any("(AttributeError: ContributionDateTime)" in row["finding"] for row in rows)
    assert "Traceback" in (project.folder / "logs/write_dicom/test_1.log").read_text()
    for page in ("index.html", "slides/test_1.html"):
        assert "(ZeroDivisionError: 0, 1)" in (project.folder / "results/report" / page).read_text()
    assert [row["slide"] for row in read_table(project.folder / "results/metrics/slides.tsv")] == ["test_1"]
    assert (project.folder / "results/lesions/train_1/lesions.dcm").read_bytes()[128:132] == b"DICM"
    for path, text in whole.items():
        (checkout / "scripts/lesionmap" / path).write_text(text)
    project.config["on_quarantine"] = "warn"
    assert (
        of("write_dicom", *ALL_SLIDES)
        | of("cut_view", *ALL_SLIDES)
        | of("draw_stain", *ALL_SLIDES)
        | {
            "list_quarantine",
            "list_findings",
            "render_report",
            "conclude",
        }
        == project.planned()
    )
    assert read_table(project.folder / "results/failed_exports.tsv") == []
    assert (project.folder / "results/lesions/test_1/lesions.dcm").read_bytes()[128:132] == b"DICM"
    assert (project.folder / "results/report/views/test_1/view.js").exists()
    assert not (project.folder / "results/report/views/test_1/quarantined.json").exists()


def test_another_colour_of_plots_reruns_what_draws_with_it(project, checkout):
    changed(checkout, "plotting.py", '"#0072B2"', '"#0072B3"')
    drawn = of("draw_stain", *ALL_SLIDES) | {"plot_metrics", "plot_learning_curves"}
    assert project.planned() == drawn | {"list_quarantine", "list_findings", "render_report", "conclude"}


@pytest.mark.parametrize("change", [{"threshold": 0.4}, {"smoothing_um": 5}, {"min_lesion_area_um2": 100}])
def test_what_is_made_of_a_map_passes_no_slide_through_the_network_again(project, change):
    project.config["inference"] |= change
    assert project.foreseen() == after_mapping()


def test_another_threshold_leaves_maps_as_they_are(project):
    before = project.results()
    project.config["inference"]["threshold"] = 0.1
    assert project.planned() == after_mapping()
    after = project.results()
    for slide in ALL_SLIDES:
        for name in ("probability.ome.tif", "inference.json"):
            assert after[f"lesions/{slide}/{name}"] == before[f"lesions/{slide}/{name}"]
    assert after["lesions/test_1/lesions.tif"] != before["lesions/test_1/lesions.tif"]
    assert json.loads(after["lesions/test_1/lesions.json"])["threshold"] == 0.1


def test_new_logic_of_training_maps_nothing_with_a_model_that_is_there(project, checkout):
    shutil.copy(project.folder / "results/model/lesionmap.safetensors", project.folder / "shipped.safetensors")
    project.config["model"]["path"] = "shipped.safetensors"
    project.run()
    changed(checkout, "training/settings.py", "epochs: int = 50", "epochs: int = 51")
    changed(checkout, "training/loss.py", "(mask != IGNORE).sum()", "(mask == IGNORE).sum()")
    assert "Nothing to be done" in project.run()


def test_another_model_card_reruns_the_card_and_its_page(project, checkout):
    changed(checkout, "report/model_card.py", "MOST_SLIDES_LISTED = 100", "MOST_SLIDES_LISTED = 1")
    assert project.planned() == {"describe_model", "render_report", "conclude"}
    assert "1 more" in (project.folder / "results/report/model.html").read_text()


def test_code_that_is_moved_reruns_nothing(project, checkout):
    library = checkout / "scripts/lesionmap"
    (library / "stain/table.py").rename(library / "stain/colours.py")
    for path in [*checkout.rglob("*.py"), *checkout.rglob("*.smk")]:
        path.write_text(path.read_text().replace("lesionmap.stain.table", "lesionmap.stain.colours"))
    assert "Nothing to be done" in project.run()


def test_where_training_runs_and_how_often_it_is_saved_is_reported_and_trains_nothing(project):
    project.config["train"] |= {"device": "cpu", "checkpoint_minutes": 0}
    assert project.planned() == {"render_report", "conclude"}  # the report shows the whole config


def test_a_second_reader_evaluates_the_slide_again_and_no_more(project):
    """Nor does one whose annotation cannot be used lose the slide."""
    first, second = (project.folder / f"annotations/{name}.geojson" for name in ("test_1", "second"))
    content = json.loads(first.read_text())
    second.write_text(json.dumps(content | {"features": content["features"][1:]}))
    sheet = project.folder / "slides.tsv"
    head, *rows = sheet.read_text().splitlines()
    rows = [f"{row}\t{'annotations/second.geojson' if row.startswith('test_1') else ''}" for row in rows]
    without = sheet.read_text()
    sheet.write_text("\n".join([f"{head}\tannotation_2", *rows]) + "\n")
    again = of("evaluate_slide", "test_1") | PER_COHORT
    imported = of("import_second_annotation", "test_1") | {"list_annotations"}
    assert project.planned() == imported | again
    results = project.folder / "results"
    pairs = {row["pair"] for row in read_table(results / "metrics/readers.tsv")}
    assert pairs == {"model–reader 1", "model–reader 2", "reader 2–reader 1"}
    assert "Agreement of readers" in (results / "report/index.html").read_text()
    (row,) = (row for row in read_table(results / "annotations.tsv") if row["second_sha256"])
    assert row["slide"] == "test_1"
    second.touch()
    assert project.planned() == imported
    second.write_text(json.dumps(content).replace("Lesion", "Lesionn"))
    assert project.planned() == imported | again
    assert read_table(results / "metrics/readers.tsv") == []
    assert [row["slide"] for row in read_table(results / "metrics/slides.tsv")] == ["test_1"]
    (failed,) = read_table(results / "failed_exports.tsv")
    assert (failed["slide"], failed["stage"]) == ("test_1", "import_second_annotation")
    assert failed["finding"].startswith("annotation_2: classes that the config does not map: 'Lesionn'")
    assert "import_second_annotation" in (results / "conclusion.txt").read_text()
    assert [row["slide"] for row in read_table(results / "quarantine.tsv")] == ["unreadable"]
    sheet.write_text(without)
    assert project.planned() == {"list_annotations"} | again
    assert read_table(results / "failed_exports.tsv") == []
