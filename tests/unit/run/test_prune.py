import json
import re
import shutil

import numpy as np
import pytest
from lesionmap.errors import SettingsError, StorageError
from lesionmap.files.records import read_table, write_json, write_text
from lesionmap.run.prune import Workflow, find_leftovers, list_leftovers, remove_leftovers
from lesionmap.slides.cache import SlideCache
from safetensors.numpy import save_file

TABLE = "results/prune.tsv"
PATHS = (
    "results/slides/{slide}.json",
    "results/slides/location/{slide}.json",
    "results/stain/{slide}.json",
    "results/stain/spread.json",
    "results/lesions/{slide}/lesions.tif",
    "results/report/views/{slide}",
    "results/manifest.tsv",
    "logs/cut_view/{slide}.log",
    "logs/train.log",
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Results of three slides, of which one is in the sheet, and of the cohort."""
    monkeypatch.chdir(tmp_path)
    for slide, content in (("a", "1" * 64), ("a.2", "2" * 64), ("b", "3" * 64)):
        write_json(f"results/slides/{slide}.json", {"info": {"identity": content}})
        write_json(f"results/slides/location/{slide}.json", {"path": f"/x/{slide}.svs"})
        for path in PATHS[2:]:
            if "{slide}" in path:
                path = path.format(slide=slide)
                write_text(path if "views" not in path else f"{path}/slide/0/0_0.js", "seven b")
        write_text(f"results/report/slides/{slide}.html", slide)
        write_text(f"results/report/figures/{slide}_overlay.png", slide)
    write_text("results/stain/spread.json", "{}")
    write_text("results/manifest.tsv", "slide\na\na.2\n")
    write_text("logs/train.log", "regions of a.2.\n")
    return tmp_path


def workflow(*slides, copies="slide_copies", model=None, prefix=""):
    paths = [f"{prefix}{path}" for path in PATHS]
    return Workflow(paths, slides, "slides.tsv", {"folder": copies}, model, f"{prefix}results")


def all_files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() or path.is_symlink()}


def listed():
    return {row["path"]: int(row["bytes"]) for row in read_table(TABLE)}


def test_the_list_has_what_belongs_to_no_row_and_nothing_is_removed(folder, capsys):
    before = all_files(folder)
    list_leftovers(workflow("a"), TABLE)
    assert all_files(folder) == before | {TABLE}
    rows = listed()
    per_slide = {path for path in before if re.search(r"[/](a\.2|b)([._/]|$)", path) and "views" not in path}
    assert rows.keys() == per_slide | {"results/report/views/a.2", "results/report/views/b"}
    assert rows["results/report/views/b"] == rows["logs/cut_view/b.log"] == 7
    printed = capsys.readouterr().err
    assert "Of slides that are not in slides.tsv there are 16 paths of 2 slides, 0.0 MB." in printed
    assert "  a.2: 8 paths, 0.0 MB" in printed
    assert "name them until a run writes them anew: results/manifest.tsv, logs/train.log\n" in printed
    assert "`snakemake prune_listed` removes" in printed


def test_what_was_listed_is_removed_and_the_slides_stay_excluded(folder, capsys):
    write_text("results/lesions/b/my notes.txt", "b")
    write_text("results/lesions/nobody.txt", "b")
    before = all_files(folder)
    list_leftovers(workflow("a"), TABLE)
    gone = {path for path in before if re.search(r"/(a\.2|b)([._/]|$)", path)} - {"results/lesions/b/my notes.txt"}
    remove_leftovers(workflow("a"), TABLE, busy=False)
    assert all_files(folder) == before - gone | {TABLE, "slides.excluded.tsv"}
    assert not (folder / "results/lesions/a.2").exists()
    assert not (folder / "results/report/views/a.2").exists()
    rows = read_table("slides.excluded.tsv")
    assert rows == [
        {"slide": "a.2", "path": "/x/a.2.svs", "sha256": "2" * 64},
        {"slide": "b", "path": "/x/b.svs", "sha256": "3" * 64},
    ]
    assert "Removed 16 paths of 2 slides" in capsys.readouterr().err
    assert listed() == {}
    remove_leftovers(workflow("a"), TABLE, busy=False)
    assert "Removed 0 paths of 0 slides" in capsys.readouterr().err
    assert read_table("slides.excluded.tsv") == rows


def test_what_a_review_shows_goes_with_its_slide(folder, capsys):
    shown = {f"results/review/{path}" for path in ("outlines/b.geojson", "before/slides/b.json")}
    for path in (*shown, "results/review/outlines/a.geojson"):
        write_text(path, "{}")
    for table in ("slides.tsv", "before/slides.tsv"):
        write_text(f"results/review/{table}", "slide\na\nb\n")
    list_leftovers(workflow("a"), TABLE)
    assert shown <= listed().keys()
    assert "results/review/outlines/a.geojson" not in listed()
    assert "results/review/slides.tsv, results/review/before/slides.tsv" in capsys.readouterr().err
    remove_leftovers(workflow("a"), TABLE, busy=False)
    assert not any((folder / path).exists() for path in shown)


def test_maps_of_experiments_go_with_their_slide(folder):
    """Below each variant and seed; other files there stay."""
    of_variant = "results/experiments/variants/{variant}/{run}/lesions/{slide}/scores.ome.tif"
    logs = "logs/map_held_out/{variant}/{run}/{slide}.log"
    for variant, run in (("low", "seed_0"), ("low", "ensemble"), ("joint", "seed_1")):
        for slide in ("a", "b"):
            for path in (of_variant, logs):
                write_text(path.format(variant=variant, run=run, slide=slide), "seven b")
    write_text("results/experiments/variants/low/seed_0/fold_1/lesionmap.onnx", "b")
    found = find_leftovers(Workflow([of_variant, logs], ("a", "a.2"), "slides.tsv", {"folder": "none"}, None))
    assert {str(path) for path in found.paths["b"] if "report" not in path.parts} == {
        path.format(variant=variant, run=run, slide="b")
        for path in (of_variant, logs)
        for variant, run in (("low", "seed_0"), ("low", "ensemble"), ("joint", "seed_1"))
    }
    assert found.paths.keys() == {"b"}


@pytest.mark.parametrize("linked", ["", "results", "logs", "deep"])
def test_results_below_a_prefix_are_pruned_in_the_same_way(folder, capsys, linked):
    metadata = {"training_slides": {"b": "3" * 64}, "architecture": {"backbone": "resnet18", "norm": "group"}}
    write_text("results/model/history.csv", "epoch\n")
    save_file({"w": np.zeros(1)}, "results/model/lesionmap.safetensors", {"lesionmap": json.dumps(metadata)})
    write_text("results/doctor.tsv", "slide\nb\n")
    before = all_files(folder)
    gone = {path for path in before if re.search(r"/(a\.2|b)([._/]|$)", path)}
    shutil.copytree(folder, folder / "deep/lesion")
    if linked:
        place = folder / {"deep": "deep"}.get(linked, f"deep/lesion/{linked}")
        place.rename(folder / "big disk")
        place.symlink_to(folder / "big disk")
    with SlideCache(folder / "copies", 10**9).entry(
        f"{1:016x}-1000", lambda place: write_text(place / "digest.txt", "3" * 64)
    ):
        pass
    asked, table = workflow("a", prefix="deep/lesion/", copies="copies"), "deep/lesion/results/prune.tsv"
    list_leftovers(asked, table)
    printed = capsys.readouterr().err
    assert (
        "anew: deep/lesion/results/manifest.tsv, deep/lesion/logs/train.log, deep/lesion/results/doctor.tsv" in printed
    )
    assert "deep/lesion/results/model/lesionmap.safetensors was made with b and names them" in printed
    remove_leftovers(asked, table, busy=False)
    left = {path for path in before if (folder / "deep/lesion" / path).exists()}
    assert left == before - gone
    assert all((folder / path).exists() for path in before)
    assert [row["path"] for row in read_table("slides.excluded.tsv")] == ["/x/a.2.svs", "/x/b.svs"]
    assert list((folder / "copies").glob("*/")) == []


@pytest.mark.parametrize("seen", [("a", "b"), None])
def test_what_nobody_has_seen_on_the_list_is_not_removed(folder, seen):
    """As with the wrong sheet, or another config: then much more would go."""
    if seen:
        list_leftovers(workflow(*seen), TABLE)
    before = all_files(folder)
    with pytest.raises(SettingsError, match=r"8 paths not on the list results/prune\.tsv, .*run snakemake prune"):
        remove_leftovers(workflow("a", "b") if not seen else workflow("a", "a.2"), TABLE, busy=False)
    assert all_files(folder) == before


def test_while_another_run_goes_on_nothing_is_removed(folder):
    list_leftovers(workflow("a"), TABLE)
    before = all_files(folder)
    with pytest.raises(StorageError, match=r"another run is going on .*Remedy: wait for its end; if it was killed"):
        remove_leftovers(workflow("a"), TABLE, busy=True)
    assert all_files(folder) == before


def test_links_are_not_followed_out_of_the_results(folder, capsys):
    outside = folder / "elsewhere"
    (folder / "results/report").rename(outside)
    (folder / "results/report").symlink_to(outside)
    (folder / "results/lesions/b/lesions.tif").unlink()
    (folder / "results/lesions/b/lesions.tif").symlink_to(folder / "results/manifest.tsv")
    there = all_files(outside)
    list_leftovers(workflow("a"), TABLE)
    remove_leftovers(workflow("a"), TABLE, busy=False)
    assert all_files(outside) == there
    assert (folder / "results/manifest.tsv").exists()
    assert not (folder / "results/lesions/b").exists()
    assert "lie behind a link, remove them yourself: results/report/views/a.2" in capsys.readouterr().err


def test_results_that_are_a_link_as_a_whole_are_pruned(folder):
    (folder / "results").rename(folder / "big disk")
    (folder / "results").symlink_to(folder / "big disk")
    assert set(find_leftovers(workflow("a")).paths) == {"a.2", "b"}
    assert not find_leftovers(workflow("a")).linked


def test_drafts_of_killed_jobs_go_too(folder):
    drafts = ("results/stain/.b.node-1.org-77.json", "results/report/views/.b.draft/slide/0/0_0.jpg")
    others = ("results/stain/.b.mine.json", "results/stain/.a.node-1-77.json", "results/report/views/.a.draft/x.jpg")
    for path in (*drafts, *others):
        write_text(path, "x")
    list_leftovers(workflow("a", "a.2"), TABLE)
    assert len(listed()) == 10
    remove_leftovers(workflow("a", "a.2"), TABLE, busy=False)
    left = all_files(folder)
    assert left.isdisjoint(drafts)
    assert left >= set(others)


def test_a_given_model_that_was_made_with_them_is_told(folder, capsys):
    metadata = {"training_slides": {"a": "1" * 64}, "validation_slides": {"b": "3" * 64}}
    metadata["architecture"] = {"backbone": "resnet18", "norm": "group"}
    save_file({"w": np.zeros(1)}, "given.safetensors", {"lesionmap": json.dumps(metadata)})
    list_leftovers(workflow("a", model="given.safetensors"), TABLE)
    assert "given.safetensors was made with b and names them. Take another as model.path" in capsys.readouterr().err
    list_leftovers(workflow("a", "b", model="given.safetensors"), TABLE)
    assert "given.safetensors" not in capsys.readouterr().err


def test_copies_of_these_slides_go_and_others_in_the_same_folder_stay(folder, capsys):
    """Also the copy of a slide with the same content as one of the sheet."""
    cache = SlideCache(folder / "cache", 10**9)
    write_json("results/slides/c.json", {"info": {"identity": "1" * 64}})  # as slide a
    places = {}
    for n, content in enumerate(("1" * 64, "2" * 64, "3" * 64, "9" * 64)):
        name = f"{n:016x}-1000"
        with cache.entry(name, lambda place, content=content: write_text(place / "digest.txt", content)) as place:
            places[content[0]] = place
    with cache.entry(places["3"].name, None):  # a job is reading it
        list_leftovers(workflow("a", copies=f"{folder}/cache"), TABLE)
        assert {path for path in listed() if "cache" in path} == {str(places["2"]), str(places["3"])}
        assert listed()[str(places["2"])] == 1000
        remove_leftovers(workflow("a", copies=f"{folder}/cache"), TABLE, busy=False)
    assert [key for key, place in places.items() if place.exists()] == ["1", "3", "9"]
    assert f"Left as a job is reading them: {places['3']}" in capsys.readouterr().err


def test_copies_on_other_machines_are_passed_over(folder):
    assert not any(find_leftovers(workflow("a", copies="$NO_SUCH_VARIABLE/x")).copies.values())
