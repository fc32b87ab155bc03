"""Tables from records of two variants, two seeds and three folds, and from models that have seen some slides."""

import json
from pathlib import Path

import numpy as np
import pytest
from evaluated import lesion, random_slide, record_of
from lesionmap.errors import SlideError, TrainingError
from lesionmap.experiments.table import ComparedFiles, ComparedInputs, compare_variants
from lesionmap.files.model_metadata import patient_digest
from lesionmap.files.records import read_json, read_table, write_json, write_table
from lesionmap.jobs.quarantine import write_quarantined
from safetensors.numpy import save_file

FOLD = {"a1": 1, "a2": 1, "b": 2, "c": 2, "d": 3, "e": 3, "f": 3}
PATIENTS = {"a1": "a", "a2": "a"}
BENCHMARK = "s\th:m:s\tmax_rss\tcpu_time\n{}\t0:00:01\t{}\t{}\n"


def write_model(path, fold, **changes):
    """A model file of a fold: trained on the third fold from its own, chosen by the next."""
    of_fold = {role: (fold + step - 1) % 3 + 1 for role, step in (("validation", 1), ("training", 2))}
    slides = {
        role: {name: f"sha256 of {name}" for name, its in FOLD.items() if its == of_fold[role]} for role in of_fold
    }
    metadata = {f"{role}_slides": slides[role] for role in slides}
    metadata["architecture"] = {"backbone": "resnet18", "norm": "group", "fusion": "mean"}
    metadata["patients"] = {
        name: patient_digest(PATIENTS[name]) for part in slides.values() for name in part if name in PATIENTS
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"x": np.zeros(1)}, path, metadata={"lesionmap": json.dumps(metadata | changes)})


@pytest.fixture
def experiment(tmp_path):
    """Inputs of a comparison of `plain` with `better`, whose maps are sharper."""
    metrics, models = [], []
    for variant, shift in (("plain", 0), ("better", 700)):
        for seed in (0, 1):
            run = tmp_path / "variants" / variant / f"seed_{seed}"
            for fold in (1, 2, 3):
                write_model(run / f"fold_{fold}/lesionmap.safetensors", fold)
                models.append(str(run / f"fold_{fold}/lesionmap.safetensors"))
            for number, name in enumerate(FOLD):
                scores, mask = random_slide(10 * seed + number)
                moved = scores + np.where(mask == 1, shift, 0).astype(np.uint16)
                record = record_of(name, moved, mask, lesions=[lesion()], patient=PATIENTS.get(name), split="train")
                path = run / f"metrics/slides/{name}.json"
                write_json(path, record)
                metrics.append(str(path))
    rows = [{"slide": name, "fold": fold} for name, fold in FOLD.items()]
    write_table(tmp_path / "folds.tsv", rows, ["slide", "fold"])
    for variant in ("plain", "better"):
        for stage, name in (("train_fold", f"recipe of {variant}"), ("map_held_out", variant)):
            for seed in ("seed_0", "seed_1", "seed_9"):  # the last is of an earlier config
                folder = tmp_path / "benchmarks" / stage / name / seed
                folder.mkdir(parents=True)
                (folder / "1.tsv").write_text(BENCHMARK.format(1800, 2048, 900))
                (folder / "2.tsv").write_text(BENCHMARK.format(1800, "NA", "NA"))
    recipes = {name: f"recipe of {name}" for name in ("plain", "better")}
    folds, benchmarks = str(tmp_path / "folds.tsv"), str(tmp_path / "benchmarks")
    return lambda **changes: ComparedInputs(
        **{
            "folds": folds,
            "metrics": metrics,
            "models": models,
            "ensemble": [],
            "patients": PATIENTS,
            "recipes": recipes,
            "n_folds": 3,
            "benchmarks": benchmarks,
        }
        | changes
    )


@pytest.fixture
def files(tmp_path):
    names = ("table.tsv", "differences.tsv", "slides.tsv", "costs.tsv", "summary.json", "headline.txt")
    return ComparedFiles(*(str(tmp_path / name) for name in names))


def rows_of(path, **wanted):
    return [row for row in read_table(path) if wanted.items() <= row.items()]


def test_every_slide_is_judged_once_by_each_seed(experiment, files):
    compare_variants(experiment(), files, 0)
    rows = read_table(files.slides)
    assert len(rows) == 2 * 2 * 7
    assert {(row["slide"], int(row["fold"])) for row in rows} == set(FOLD.items())
    (row,) = rows_of(files.slides, variant="better", run="seed_1", slide="c")
    record = read_json(next(path for path in experiment().metrics if "better/seed_1/metrics/slides/c.json" in path))
    assert float(row["dice"]) == pytest.approx(record["metrics"]["dice"], abs=1e-6)


def test_tables_and_headline_agree(experiment, files):
    compare_variants(experiment(), files, 0)
    slides = read_table(files.slides)
    means = {}
    for variant in ("plain", "better"):
        (row,) = rows_of(files.table, variant=variant, metric="slide_mean_dice", judged="out of fold")
        of_seed = [
            np.mean([float(one["dice"]) for one in slides if (one["variant"], one["run"]) == (variant, seed)])
            for seed in ("seed_0", "seed_1")
        ]
        assert float(row["value"]) == pytest.approx(np.mean(of_seed), abs=1e-6)
        assert float(row["seed_sd"]) == pytest.approx(np.std(of_seed, ddof=1), abs=1e-6)
        assert (row["slides"], row["patients"]) == ("7", "6")
        assert float(row["low"]) < float(row["value"]) < float(row["high"])
        means[variant] = np.mean(of_seed)
    (row,) = rows_of(files.differences, metric="slide_mean_dice")
    assert (row["variant"], row["minus"], row["patients"]) == ("better", "plain", "6")
    assert float(row["difference"]) == pytest.approx(means["better"] - means["plain"], abs=1e-6)
    assert float(row["p"]) == pytest.approx(2 / 2**6, abs=1e-6)  # all six patients agree
    assert row["p_holm"] == row["p"]
    ahead = f"{means['better'] - means['plain']:.4f}"
    last = Path(files.headline).read_text(encoding="utf-8").splitlines()[-1]
    assert last == f"cv: variants=2 folds=3 seeds=2 best=better minus_next={ahead}"


def test_p_values_are_adjusted_within_a_metric(experiment, files, tmp_path):
    third = []
    for path in experiment().metrics:
        if "/plain/" in path:
            record = read_json(path)
            path = path.replace("/plain/", "/third/")
            write_json(path, record)
            third.append(path)
    inputs = experiment()
    models = [
        *inputs.models,
        *(path.replace("/plain/", "/third/") for path in inputs.models if "/plain/" in path),
    ]
    for path in models[-6:]:
        write_model(tmp_path / path, int(path.split("fold_")[1][0]))
    recipes = inputs.recipes | {"third": "recipe of plain"}
    compare_variants(experiment(metrics=[*inputs.metrics, *third], models=models, recipes=recipes), files, 0)
    rows = {(row["variant"], row["minus"]): row for row in rows_of(files.differences, metric="dice")}
    assert list(rows) == [("better", "plain"), ("third", "plain"), ("third", "better")]
    assert float(rows["third", "plain"]["p"]) == 1
    p = float(rows["better", "plain"]["p"])
    assert float(rows["better", "plain"]["p_holm"]) == pytest.approx(3 * p, abs=1e-6)
    assert float(rows["third", "better"]["p_holm"]) == pytest.approx(3 * p, abs=1e-6)


def test_boundaries_are_compared_on_slides_that_both_variants_found(experiment, files):
    """Else a variant that misses a slide, and so has no distance there, would be judged by the easier ones."""
    for path in experiment().metrics:
        record = read_json(path)
        missed = "/better/" in path and record["slide"] == "b"
        nsd = 0.5 if "/plain/" in path else 0.6
        boundary = {"tolerance_um": 30, "nsd": None if missed else 0.9 if record["slide"] == "b" else nsd}
        write_json(path, record | {"boundary": boundary | {"hd95_um": None}})
    compare_variants(experiment(), files, 0)
    (plain,) = rows_of(files.table, variant="plain", metric="slide_mean_nsd")
    assert float(plain["value"]) == pytest.approx((6 * 0.5 + 0.9) / 7, abs=1e-6)
    (row,) = rows_of(files.differences, metric="slide_mean_nsd")
    assert (row["variant"], row["minus"]) == ("better", "plain")
    assert float(row["difference"]) == pytest.approx(0.1, abs=1e-6)
    assert row["patients"] == "5"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"training_slides": {"other id": "sha256 of b"}}, r"slide b, .*training slide of the model \(other id\)"),
        ({"validation_slides": {"x": "sha256 of c"}}, r"slide c, .*validation slide"),
        ({"training_slides": {"x": "unlike"}, "patients": {"x": patient_digest("b's")}}, r"slide b, .*same patient"),
    ],
)
def test_a_model_that_knows_what_it_is_judged_by_ends_the_comparison(experiment, files, tmp_path, changes, said):
    record = next(path for path in experiment().metrics if "plain/seed_1/metrics/slides/b.json" in path)
    write_json(record, read_json(record) | {"patient": "b's"})
    write_model(tmp_path / "variants/plain/seed_1/fold_2/lesionmap.safetensors", 2, **changes)
    with pytest.raises(TrainingError, match=f"(?s){said}.*Remedy: delete .*/models and .*/variants and run"):
        compare_variants(experiment(), files, 0)
    assert not (tmp_path / "table.tsv").exists()


def test_a_patient_that_the_sheet_names_now_counts(experiment, files):
    with pytest.raises(TrainingError, match=r"same patient as a training slide of the model"):
        compare_variants(experiment(patients=PATIENTS | {"d": "a"}), files, 0)


def test_what_not_every_run_has_is_left_out_and_told(experiment, files):
    paths = experiment().metrics
    broken = next(path for path in paths if "better/seed_0/metrics/slides/e.json" in path)
    refused = SlideError(slide="e", stage="s", finding="f", remedy="r")
    write_quarantined([broken], refused)
    blank = next(path for path in paths if "plain/seed_1/metrics/slides/d.json" in path)
    nothing = record_of("d", random_slide(1)[0], np.full((40, 50), 255, np.uint8))
    write_json(blank, nothing)
    compare_variants(experiment(), files, 0)
    assert {row["slide"] for row in read_table(files.slides)} == FOLD.keys() - {"d", "e"}
    left_out = read_json(files.summary)["left_out"]
    assert left_out == {"d": "plain seed_1: no pixel could be evaluated", "e": f"better seed_0: {refused}"}
    assert "left out: d, plain seed_1" in Path(files.headline).read_text(encoding="utf-8")


def test_ensembles_are_judged_on_test_slides_that_no_model_has_seen(experiment, files, tmp_path):
    ensemble = []
    for number, (name, patient) in enumerate((("t1", None), ("t2", "z"), ("t3", "a"))):
        path = tmp_path / f"variants/better/ensemble/metrics/slides/{name}.json"
        write_json(path, record_of(name, *random_slide(50 + number), patient=patient))
        ensemble.append(str(path))
    compare_variants(experiment(ensemble=ensemble), files, 0)
    (row,) = rows_of(files.table, judged="ensemble, test slides", metric="dice")
    assert (row["variant"], row["slides"]) == ("better", "2")
    assert read_json(files.summary)["leaked_test_slides"] == ["t3"]  # of patient a
    assert {row["slide"] for row in rows_of(files.slides, run="ensemble")} == {"t1", "t2"}


def test_costs_are_those_of_all_folds_and_seeds(experiment, files):
    compare_variants(experiment(), files, 0)
    assert read_table(files.costs)[0] == {
        "variant": "plain",
        "recipe": "recipe of plain",
        "trainings": "4",
        "training_hours": "2.000000",
        "training_cpu_hours": "0.500000",
        "training_peak_gb": "2.000000",
        "maps": "4",
        "mapping_hours": "2.000000",
        "mapping_cpu_hours": "0.500000",
        "mapping_peak_gb": "2.000000",
    }


def test_without_benchmark_files_there_are_no_costs(experiment, files, tmp_path):
    compare_variants(experiment(benchmarks=str(tmp_path / "none")), files, 0)
    assert read_table(files.costs)[1]["training_hours"] == "NA"
