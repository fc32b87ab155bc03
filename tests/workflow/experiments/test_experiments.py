"""Two variants over three folds and two seeds, in real runs; what runs when something is added; what no model knows."""

import re
from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from lesionmap.demo.cohort import write_cohort
from lesionmap.demo.painting import DemoSlide
from lesionmap.experiments.folds import read_folds
from lesionmap.files.model_metadata import load_metadata, patient_digest
from lesionmap.files.records import read_json, read_table, write_table
from lesionmap.inference.engines import EngineFiles, EngineSettings
from lesionmap.inference.map_slide import MapFiles, MapInputs, map_slide
from lesionmap.inference.settings import MapSettings
from lesionmap.slides.slide import load_info
from project import ROOT
from small_experiments import write_rows

JUDGED = {"map_held_out", "find_held_out_lesions", "evaluate_held_out"}
COMPARED = {"compare_variants", "plot_variants", "report_experiments", "experiments"}
OUTPUTS = "results/experiments"


def planned(project, *arguments):
    """Number of jobs of each rule in a dry run, and the wildcards of the trainings among them."""
    printed = project.run("--dry-run", *arguments, "experiments")
    blocks = re.split(r"\n(?:local)?(?:rule|checkpoint) ", "\n" + printed)[1:]
    names = Counter(block.split(":")[0] for block in blocks)
    trained = {re.search("wildcards: (.*)", block)[1] for block in blocks if block.startswith("train_fold:")}
    return dict(names), {tuple(re.findall(r"=(\w+)", one)) for one in trained}


def test_every_slide_is_judged_by_models_that_know_neither_it_nor_its_patient(finished_experiments):
    folder = finished_experiments.folder
    folds, sheet = read_folds(folder / OUTPUTS / "folds.tsv"), read_table(folder / "slides.tsv")
    pool = {row["slide"]: row["patient"] for row in sheet if row["split"] in ("train", "val")}
    identity = {row["slide"]: row["identity"] for row in read_table(folder / "results/manifest.tsv")}
    assert folds.keys() == pool.keys()
    judged = Counter((row["variant"], row["run"], row["slide"]) for row in read_table(folder / OUTPUTS / "slides.tsv"))
    expected = {
        (variant, f"seed_{seed}", slide) for variant in ("plain", "low_only") for seed in (0, 1) for slide in pool
    }
    assert set(judged) == expected | {("low_only", "ensemble", "test_1")}
    assert set(judged.values()) == {1}
    for variant in ("plain", "low_only"):
        for slide, fold in folds.items():
            record = read_json(folder / f"{OUTPUTS}/variants/{variant}/seed_1/lesions/{slide}/inference.json")
            model = load_metadata(folder / f"{OUTPUTS}/variants/{variant}/seed_1/fold_{fold}/lesionmap.safetensors")
            assert record["provenance"]["model_training"] == model["provenance"]
            known = model["training_slides"] | model["validation_slides"]
            assert identity[slide] not in known.values()
            assert not pool[slide] or patient_digest(pool[slide]) not in model["patients"].values()
            assert len(known) == sum(its != fold for its in folds.values())


def test_tile_stores_are_made_once_and_shared(finished_experiments):
    folder = finished_experiments.folder
    assert len(list((folder / "results/tiles").glob("*.h5"))) == 7
    assert not list((folder / OUTPUTS).rglob("*.h5"))
    made = [path.name for path in (folder / "results/benchmarks").iterdir()]
    assert "train" not in made  # the model of the default target is not asked for


def test_tables_have_both_variants_with_their_intervals_and_differences(finished_experiments):
    folder = finished_experiments.folder / OUTPUTS
    table = {
        (row["variant"], row["metric"]): row
        for row in read_table(folder / "table.tsv")
        if row["judged"] == "out of fold"
    }
    slides = defaultdict(list)
    for row in read_table(folder / "slides.tsv"):
        if row["run"] != "ensemble":
            slides[row["variant"], row["run"]].append(float(row["auroc"]))
    for variant in ("plain", "low_only"):
        row = table[variant, "slide_mean_auroc"]
        means = [np.mean(slides[variant, seed]) for seed in ("seed_0", "seed_1")]
        assert float(row["value"]) == pytest.approx(np.mean(means), abs=1e-6)
        assert float(row["seed_sd"]) == pytest.approx(np.std(means, ddof=1), abs=2e-6)
        assert (row["slides"], row["patients"]) == ("7", "5")
        assert float(row["low"]) <= float(row["value"]) <= float(row["high"])
    (row,) = (row for row in read_table(folder / "differences.tsv") if row["metric"] == "slide_mean_auroc")
    of_pair = (float(table[row[role], "slide_mean_auroc"]["value"]) for role in ("variant", "minus"))
    gap = next(of_pair) - next(of_pair)
    assert float(row["difference"]) == pytest.approx(gap, abs=2e-6)
    assert float(row["p"]) * 2**5 == pytest.approx(round(float(row["p"]) * 2**5), abs=1e-3)
    last = (folder / "headline.txt").read_text().splitlines()[-1]
    assert re.fullmatch(r"cv: variants=2 folds=3 seeds=2 best=(plain|low_only) minus_next=\d\.\d{4}", last)
    costs = {row["variant"]: row for row in read_table(folder / "costs.tsv")}
    assert costs["plain"]["recipe"] != costs["low_only"]["recipe"]
    assert {row["trainings"] for row in costs.values()} == {"6"}
    assert {row["maps"] for row in costs.values()} == {"14"}
    assert all(float(row["training_hours"]) > 0 for row in costs.values())


def test_the_page_shows_them_and_has_its_pictures(finished_experiments):
    folder = finished_experiments.folder / OUTPUTS
    page = (folder / "report.html").read_text()
    assert all(word in page for word in ("plain", "low_only", "Paired differences", "train.schedule: low_only"))
    links = set(re.findall(r'(?:src|href)="([^"#]+)"', page))
    assert {"variants.svg", "learning_curves.svg", "table.tsv", "differences.tsv"} <= links
    assert all((folder / link).exists() for link in links)


def test_an_ensemble_maps_other_slides_and_says_where_its_models_differ(finished_experiments):
    folder = finished_experiments.folder / OUTPUTS / "variants"
    assert not (folder / "plain/ensemble").exists()
    for slide in ("test_1", "new"):
        place = folder / "low_only/ensemble/lesions" / slide
        spread = tifffile.imread(place / "uncertainty.ome.tif")
        assert spread.shape == tifffile.imread(place / "probability.ome.tif").shape
        assert spread.max() > 0
        assert "uncertainty_mean" in (place / "lesions.tsv").read_text().splitlines()[0]
        assert len(read_json(place / "inference.json")["members"]) == 6
    assert (folder / "low_only/ensemble/metrics/slides/test_1.json").exists()
    assert not (folder / "low_only/ensemble/metrics/slides/new.json").exists()


def test_the_map_of_an_ensemble_is_the_mean_of_its_members_maps(finished_experiments, tmp_path):
    """Each member maps the slide alone, with the settings that the record has."""
    results = finished_experiments.folder / "results"
    place = results / "experiments/variants/low_only/ensemble/lesions/test_1"
    asked = read_json(place / "inference.json")["provenance"]["inference"]
    settings, engine = MapSettings.of(asked, 0.05), EngineSettings(asked["engine"], asked["precision"])
    info = replace(load_info(results / "slides/info/test_1.json"), path=str(results.parent / "slides/test_1.tif"))
    maps = []
    for number, model in enumerate(sorted(place.parents[2].glob("seed_*/fold_*/lesionmap.safetensors"))):
        paths = [str(model), str(model.with_suffix(".onnx")), str(model.with_name("engine_check.json"))]
        inputs = [str(results / path) for path in ("tissue/test_1.tif", "stain/matches/test_1.json")]
        out = tmp_path / str(number)
        out.mkdir()
        files = MapFiles(*(str(out / name) for name in ("probability.ome.tif", "scores.ome.tif", "inference.json")))
        map_slide(info, MapInputs(*inputs, [EngineFiles(*paths)]), files, settings, engine, provenance={}, threads=1)
        maps.append(tifffile.imread(files.probability).astype(float))
    assert len(maps) == 6
    assert np.ptp(np.stack(maps), axis=0).max() > 3
    assert np.abs(tifffile.imread(place / "probability.ome.tif") - np.mean(maps, axis=0)).max() <= 1
    spread = tifffile.imread(place / "uncertainty.ome.tif") / 510
    assert np.abs(spread - np.std(maps, axis=0) / 255).max() <= 1.5 / 255


def test_nothing_is_left_to_do_and_what_is_added_runs_alone(project):
    """Dry runs, which change nothing."""
    before, plan = dict(project.config["experiments"]), project.config["experiments"]
    assert planned(project) == ({}, set())
    plan["variants"] = before["variants"] | {"overlap": {"inference": {"overlap": 0.25}}}
    jobs, trained = planned(project)
    assert not trained  # it differs in its maps alone
    assert jobs.keys() == JUDGED | COMPARED | {"publish_fold_model", "export_fold_model"}
    assert {jobs[rule] for rule in JUDGED} == {14}

    plan["variants"] = before["variants"] | {"longer": {"train": {"epochs": 2}}}
    jobs, trained = planned(project)
    assert len(trained) == 6
    assert len({recipe for recipe, _, _ in trained}) == 1
    assert {jobs[rule] for rule in JUDGED} == {14}

    plan["variants"] = {"plain": {}, "low_only": {"train": {"schedule": "low_only", "epochs": 2}}}
    jobs, trained = planned(project)
    assert len(trained) == 6
    assert jobs["map_held_out"] == 14

    plan["variants"], plan["seeds"] = before["variants"], [0, 1, 5]
    jobs, trained = planned(project)
    assert len(trained) == 6
    assert {seed for _, seed, _ in trained} == {"5"}
    assert jobs["map_held_out"] == 14
    assert jobs["map_ensemble"] == 2  # it has more members

    plan["seeds"] = before["seeds"]
    assert planned(project) == ({}, set())


def test_on_a_cluster_all_trainings_and_maps_wait_for_nothing_of_each_other(project):
    """A dry run with the profile of SLURM, which asks no cluster."""
    project.profile = ROOT / "profiles/slurm"
    project.config["experiments"]["seeds"] = [7, 8]
    printed = project.run("--dry-run", "experiments")
    blocks = re.split(r"\n\s*(?:local)?(?:rule|checkpoint) ", "\n" + printed)[1:]  # those of groups are indented
    inputs = defaultdict(list)
    for block in blocks:
        found = re.search(r"\n +input: (.*)", block)
        inputs[block.split(":")[0]].append(set(found[1].split(", ")) if found else set())
    assert len(inputs["train_fold"]) == 12
    assert {path.split("/")[1] for paths in inputs["train_fold"] for path in paths} == {"tiles"}
    assert len(inputs["map_held_out"]) == 28
    assert all(sum("/fold_" in path for path in paths) == 3 for paths in inputs["map_held_out"])  # of one model
    assert "gpu=1" in printed
    assert "runtime=1440" not in printed
    project.config["experiments"]["variants"]["plain"] = {"inference": {"refine": "all"}}
    printed = project.run("--dry-run", "experiments")
    maps = re.findall(r"rule map_(?:held_out|ensemble):.*?runtime=(\d+), gpu=1\n", printed, re.DOTALL)
    assert len(maps) == 30
    assert set(maps) == {"1440"}


def test_a_slide_that_is_added_trains_what_is_not_judged_by_it_and_moves_nobody(project):
    folder = project.folder
    before = read_folds(folder / OUTPUTS / "folds.tsv")
    rows = read_table(folder / "slides.tsv")
    write_cohort(folder / "more", (DemoSlide("added", 940, 760, 30, "train", "qupath"),), jpeg_quality=None)
    (added,) = read_table(folder / "more/slides.tsv")
    for path in ("slides/added.tif", "annotations/added.geojson"):
        (folder / "more" / path).rename(folder / path)
    write_rows(folder, [*rows, added])
    project.run(f"{OUTPUTS}/folds.tsv")
    folds = read_folds(folder / OUTPUTS / "folds.tsv")
    assert {slide: folds[slide] for slide in before} == before
    jobs, trained = planned(project)
    judging = str(folds["added"])
    assert {fold for _, _, fold in trained} == {"1", "2", "3"} - {judging}
    assert len(trained) == 2 * 2 * 2
    assert jobs["extract_tiles"] == 1
    held_out = sum(fold != folds["added"] for fold in before.values())
    assert jobs["map_held_out"] == 2 * 2 * (held_out + 1)  # those of models that are new, and the new slide


def test_a_patient_that_is_named_later_leaves_its_old_fold(project):
    folder = project.folder
    before, rows = read_folds(folder / OUTPUTS / "folds.tsv"), read_table(folder / "slides.tsv")
    alone = [row["slide"] for row in rows if row["slide"] in before and not row["patient"]]
    first, second = next((a, b) for a in before for b in alone if before[a] != before[b])
    patient = next(row["patient"] for row in rows if row["slide"] == first) or "p9"
    named = [row | {"patient": patient} if row["slide"] in (first, second) else row for row in rows]
    write_table(folder / "slides.tsv", named, list(rows[0]))
    project.run(f"{OUTPUTS}/folds.tsv")
    folds = read_folds(folder / OUTPUTS / "folds.tsv")
    assert folds[first] == folds[second]
    assert sum(folds[slide] != before[slide] for slide in before) == 1
    assert planned(project)[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variants": {"v": {"tiles": {"mpp": 0.5}}}}, "variants share slides and tiles"),
        ({"variants": {"a b": {}}}, "'a b' does not match"),
        ({"folds": 2}, "experiments.folds: 2 is less than the minimum of 3"),
        ({"ensemble": "best"}, "experiments.ensemble is best, but the variants are low_only, plain"),
    ],
)
def test_wrong_settings_are_told_before_anything_runs(project, changes, message):
    project.config["experiments"] |= changes
    printed = " ".join(project.run("--dry-run", "experiments", ok=False).split())
    assert message in printed
    assert "Traceback" not in printed


def test_more_folds_than_patients_stop_with_a_remedy_and_leave_the_table(project):
    before = (project.folder / OUTPUTS / "folds.tsv").read_bytes()
    project.config["experiments"]["folds"] = 6
    printed = project.run("experiments", ok=False)
    assert "the readable train and val slides are of 5 patients. Remedy: set it to 5 or less" in " ".join(
        printed.split()
    )
    assert (project.folder / OUTPUTS / "folds.tsv").read_bytes() == before


def test_a_given_model_and_experiments_exclude_each_other(project):
    model = next((project.folder / OUTPUTS / "variants/plain/seed_0").rglob("lesionmap.safetensors"))
    project.config["model"] = {"path": str(model)}
    del project.config["tiles"], project.config["stain"]
    assert "experiments train models, and model.path names one" in project.run("experiments", ok=False)
