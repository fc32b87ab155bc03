"""A model in other hands than those that trained it: what it brings, what is refused, and what stops the run."""

import json
import shutil

import pytest
from lesionmap.files.model_metadata import load_metadata
from project import TINY
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

MODEL = "results/model/lesionmap.safetensors"
MAP = "results/lesions/test_1/probability.ome.tif"
SAID_BY_NO_ONE = ("tissue", "stain", "tiles", "model")  # in the config of a user who knows nothing of the training


@pytest.fixture
def shipped(project, finished):
    """The finished cohort's slides and its model, and nothing else that it made; the config is a stranger's."""
    shutil.rmtree(project.folder / "results")
    shutil.rmtree(project.folder / ".snakemake")
    shutil.copy(finished.folder / MODEL, project.folder / "shipped.safetensors")
    for section in SAID_BY_NO_ONE:
        del project.config[section]
    project.config["model"] = {"path": "shipped.safetensors"}
    return project


def rewritten(path, metadata=None, tensors=None):
    """Change what a model file holds: entries of its metadata (None removes them), and tensors."""
    with safe_open(path, "numpy") as file:
        content = json.loads(file.metadata()["lesionmap"]) | (metadata or {})
    kept = {key: value for key, value in content.items() if value is not None}
    save_file(load_file(path) | (tensors or {}), path, metadata={"lesionmap": json.dumps(kept)})


def test_a_model_file_has_the_settings_of_its_input(finished):
    model = load_metadata(finished.folder / MODEL)
    assert model["input"]["tissue"] == TINY["tissue"]
    assert model["input"]["stain"]["n_pixels"] == 20_000
    assert model["input"]["stain"]["method"] == "vahadane"
    card = (finished.folder / "results/model/MODEL_CARD.md").read_text()
    assert "      min_area_um2: 500\n" in card
    assert "n_pixels" not in (finished.folder / "results/conclusion.txt").read_text()  # it was trained here


def test_a_run_with_a_model_makes_the_maps_of_its_training_run_and_says_what_it_took(shipped, finished):
    printed = shipped.run("--cores", "2")
    for path in (MAP, "results/tissue/test_1.tif"):
        assert (shipped.folder / path).read_bytes() == (finished.folder / path).read_bytes()
    taken = ("tissue.mpp: 4.0", "stain.n_pixels: 20000", "tiles.tile_px: 64", "model.backbone: resnet18")
    report, conclusion = (
        (shipped.folder / "results" / name).read_text() for name in ("report/index.html", "conclusion.txt")
    )
    for setting in taken:
        assert f"LesionMap, model shipped.safetensors: {setting}, from the model" in printed
        assert f"<li>{setting}, from the model</li>" in report
        assert f"model: {setting}, from the model" in conclusion
    assert "stain.method" not in printed  # both have the default
    assert "\n  n_pixels: 20000\n" in report  # among the run's settings

    # The same values, written out, change nothing; others are refused before any job.
    shipped.config |= {section: dict(TINY[section]) for section in ("tissue", "tiles")}
    shipped.config["stain"] = {"n_pixels": 20_000}
    assert not {job for job in shipped.foreseen() if job.startswith(("find_tissue", "match_stain", "map_slide"))}
    shipped.config["stain"] |= {"method": "macenko"}
    shipped.config["tissue"]["mpp"] = 6.0
    shipped.config["slides"]["apply_icc"] = True
    for target in ((), ("doctor",)):
        refused = shipped.run(*target, ok=False)
        for line in (
            "the model shipped.safetensors was trained with other settings than the config has:",
            "  - slides.apply_icc: False in the model, True in the config",
            "  - tissue.mpp: 4.0 in the model, 6.0 in the config",
            "  - stain.method: vahadane in the model, macenko in the config",
            "stain: {method: vahadane}",
        ):
            assert line in refused
        assert "Traceback" not in refused
        assert "rule " not in refused


def test_weights_that_are_no_numbers_stop_the_run_and_name_the_model(shipped):
    path = shipped.folder / "shipped.safetensors"
    bias = load_file(path)["head.bias"]
    rewritten(path, {"input": None}, {"head.bias": bias * float("nan")})
    shipped.config |= {section: TINY[section] for section in ("tissue", "stain")}  # it is as of an older version, too
    printed = shipped.run("results/model/MODEL_CARD.md", MAP, ok=False)
    said = "the model shipped.safetensors cannot be used: its tensor head.bias holds NaN or infinity. Remedy: "
    assert f"LesionMap: model: {said}" in printed
    assert "quarantine" not in (shipped.folder / "logs/map_slide/test_1.log").read_text()
    assert not (shipped.folder / MAP).exists()
    assert "UNKNOWN: slides.apply_icc, " in printed
    card = (shipped.folder / "results/model/MODEL_CARD.md").read_text()
    assert "Not recorded: the file is of an older version" in card
    assert said in shipped.run("doctor", ok=False)


def test_a_model_that_cannot_be_used_stops_the_run_before_its_first_job(shipped):
    path = shipped.folder / "shipped.safetensors"
    whole = path.read_bytes()
    for changes, said in (
        ({"architecture": {"backbone": "vgg16", "norm": "group"}}, "model.backbone: 'vgg16' is not one of"),
        ({"tiles": {"region_px": 512, "tile_px": 64, "mpp": -0.25}}, "tiles.mpp: -0.25 is less than the minimum"),
        ({"input": {"stain": {"method": "none", "angle": 3}}}, "does not know: stain.angle"),
        (None, "is not a LesionMap model (SafetensorError: "),
    ):
        path.write_bytes(whole if changes else whole[:1000])
        if changes:
            rewritten(path, changes)
        printed = shipped.run("--dry-run", ok=False)
        assert said in printed
        assert "shipped.safetensors" in printed
        assert "Remedy: " in printed
        assert "Traceback" not in printed
