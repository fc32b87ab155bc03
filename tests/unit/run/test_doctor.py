import json
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from lesionmap.annotations.canonical import canonical
from lesionmap.annotations.formats import read_annotation
from lesionmap.annotations.masks import Annotation
from lesionmap.errors import LesionMapError, SlideError
from lesionmap.evaluation.leakage import UNKNOWN_PATIENTS
from lesionmap.files.model_metadata import patient_digest
from lesionmap.files.records import write_json
from lesionmap.geometry.identity import lesion_id
from lesionmap.network.model import LesionFPN
from lesionmap.network.model_file import save_model
from lesionmap.network.resources import FORWARD_FLOPS, MachineCosts
from lesionmap.network.settings import ModelSettings
from lesionmap.run import costs
from lesionmap.run.costs import Work, costs_of, overview_of, predict_work
from lesionmap.run.doctor import examine_sheet
from lesionmap.run.settings import RunSettings
from lesionmap.slides.identity import content_digest
from lesionmap.slides.sheet import SlideRow
from lesionmap.stain.table import StainMatch
from lesionmap.tiles.codec import TileCodec
from lesionmap.tiles.extraction import Extraction, extract_tiles
from lesionmap.tissue.detection import find_tissue
from pyramids import damage, info_of, write_tiff
from shapely.geometry import shape
from stained import PROFILE
from torch.utils.flop_counter import FlopCounterMode
from web_server import serving

pytestmark = pytest.mark.slides
MACHINE = MachineCosts(start_s=4.3, forward_s=0.5, training_s=1.25, training_bytes=400_000_000)
TUMOR = {"objectType": "annotation", "classification": {"name": "Tumor"}}


@pytest.fixture
def config(request):
    content = yaml.safe_load((request.config.rootpath / "config/config.yaml").read_text())
    content["tissue"] = {"mpp": 4.0, "min_area_um2": 500, "min_hole_um2": 500}
    content["tiles"] |= {"region_px": 512, "tile_px": 64}
    content["stain"]["reference"] = "a"
    return content


def pink_tissue():
    """Pink tissue on 1600 × 1100 px, white but for x 512–1023 and y 256–767: a half of two regions."""
    image = np.full((1100, 1600, 3), 250, dtype=np.uint8)
    image[256:768, 512:1024] = (200, 90, 160)
    return image


@pytest.fixture
def tissue():
    return pink_tissue()


def outlines(path, *squares):
    features = [
        {
            "type": "Feature",
            "properties": TUMOR,
            "geometry": {"type": "Polygon", "coordinates": [[[x, y], [x + s, y], [x + s, y + s], [x, y + s], [x, y]]]},
        }
        for x, y, s in squares
    ]
    write_json(path, {"type": "FeatureCollection", "features": features})
    return str(path)


@pytest.fixture(scope="module")
def four_slides(tmp_path_factory):
    """A folder with the slides of `rows`, not to be changed."""
    folder, image = tmp_path_factory.mktemp("slides"), pink_tissue()
    for index, slide in enumerate("abcd"):
        image[0, 0] = index
        write_tiff(folder / f"{slide}.tif", image, factors=(1, 4))
    return folder


@pytest.fixture
def rows(tmp_path, four_slides):
    """A sound sheet: two training slides, one to test, one for inference, all different."""
    made = []
    for index, (slide, split) in enumerate({"a": "train", "b": "train", "c": "test", "d": "inference"}.items()):
        path = shutil.copy(four_slides / f"{slide}.tif", tmp_path)
        annotation = "" if split == "inference" else outlines(tmp_path / f"{slide}.geojson", (600, 300, 50))
        made.append(SlideRow(slide, str(path), split, annotation, patient=f"p{index}"))
    return made


def machine_file(tmp_path):
    """Where what was measured is kept: for all tests, so that few measure."""
    return tmp_path.parent / "machine_costs.json"


def examined(tmp_path, rows, config, capsys):
    """Whether it failed, what it printed, the table by slide, and the JSON."""
    paths = str(tmp_path / "doctor.tsv"), str(tmp_path / "doctor.json"), str(machine_file(tmp_path))
    try:
        examine_sheet(rows, RunSettings.of(config), *paths, threads=2)
        failed = None
    except LesionMapError as error:
        failed = str(error)
    table = pd.read_csv(paths[0], sep="\t", keep_default_na=False).set_index("slide")
    with open(paths[1], encoding="utf-8") as stream:
        return failed, capsys.readouterr().out, table, json.load(stream)


def test_what_the_run_will_say_of_its_model_is_noted_first(tmp_path, rows, config, capsys):
    note, paths = "mind this", [str(tmp_path / name) for name in ("doctor.tsv", "doctor.json")]
    examine_sheet(rows, RunSettings.of(config), *paths, str(machine_file(tmp_path)), threads=2, model_notes=[note])
    assert f"\nnote: {note}\n" in capsys.readouterr().out + "\n"
    assert json.loads((tmp_path / "doctor.json").read_text())["notes"][0] == note


def test_a_sound_sheet_passes(tmp_path, rows, config, capsys):
    failed, printed, table, report = examined(tmp_path, rows, config, capsys)
    assert failed is None
    assert set(table["verdict"]) == {"ok"}
    assert report["sheet_errors"] == []
    assert printed.splitlines()[1].split() == ["a", "train", "ok", "2", str(table["tiles"]["a"])]
    assert f"4 usable slides: 4 regions and {table['tiles'].sum()} tiles for training" in printed
    assert report["jobs"] | {"inspect_slide": 4, "extract_tiles": 2, "evaluate_slide": 1} == report["jobs"]
    assert f"\n{sum(report['jobs'].values())} jobs from start to end, if no slide goes into quarantine: " in printed


def test_slides_that_fail_their_inspection_count_for_no_other_job(tmp_path, rows, config, capsys):
    absent = [replace(row, path="absent.tif") if row.slide == "b" else row for row in rows]
    report = examined(tmp_path, absent, config, capsys)[3]
    assert {rule: report["jobs"][rule] for rule in ("inspect_slide", "find_tissue", "extract_tiles")} == {
        "inspect_slide": 4,
        "find_tissue": 3,
        "extract_tiles": 1,
    }


@pytest.mark.parametrize(
    ("slide", "change", "verdict", "finding"),
    [
        ("b", {"path": "absent.tif"}, "error", "the file absent.tif does not exist"),
        ("b", {"mpp": 0.5}, "error", "0.5 µm/px (slide sheet) is coarser"),
        ("d", {"mpp": 0.05}, "warning", "implausible"),
        ("b", {"annotation": "absent.xml"}, "error", "its annotation absent.xml does not exist"),
        ("b", {"patient": "p2"}, "error", "patient p2 is in the splits train and test"),
        ("d", {"patient": "p2"}, "ok", ""),
    ],
)
def test_problems_of_slides_are_found(tmp_path, rows, config, capsys, slide, change, verdict, finding):
    changed = [SlideRow(**vars(row) | (change if row.slide == slide else {})) for row in rows]
    failed, printed, table, _ = examined(tmp_path, changed, config, capsys)
    assert table["verdict"][slide] == verdict
    assert finding in table["findings"][slide]
    assert finding in printed
    assert (failed is not None) == (verdict == "error")


def test_equal_slides_are_an_error_across_splits_and_a_warning_within(tmp_path, rows, config, capsys):
    copies = [SlideRow("a2", rows[0].path, "train", rows[0].annotation), SlideRow("c2", rows[0].path, "inference")]
    failed, _, table, _ = examined(tmp_path, [*rows, *copies], config, capsys)
    assert failed is None
    assert table["findings"]["a2"] == "the same slide as a (train), c2 (inference)"
    assert table["verdict"][["a", "a2", "c2"]].tolist() == ["warning"] * 3
    leak = SlideRow("c3", rows[0].path, "test", rows[0].annotation)
    failed, _, table, _ = examined(tmp_path, [*rows, leak], config, capsys)
    assert table["verdict"][["a", "c3"]].tolist() == ["error"] * 2
    assert "doctor: 2 errors" in failed


def test_slides_that_differ_in_the_middle_are_not_equal(tmp_path, rows, config, capsys, monkeypatch):
    monkeypatch.setattr("lesionmap.slides.identity.SAMPLES", 2)  # the start and the end
    monkeypatch.setattr("lesionmap.slides.identity.SAMPLE_BYTES", 64)
    middle = bytearray((tmp_path / "d.tif").read_bytes())
    middle[len(middle) // 2] ^= 1
    (tmp_path / "e.tif").write_bytes(middle)
    _, _, table, _ = examined(tmp_path, [*rows, SlideRow("e", str(tmp_path / "e.tif"), "inference")], config, capsys)
    assert "same slide" not in "".join(table["findings"])


def test_many_equal_slides_are_named_in_part(tmp_path, rows, config, capsys):
    copies = [SlideRow(f"d{index}", rows[3].path, "inference") for index in range(8)]
    _, _, table, _ = examined(tmp_path, [*rows, *copies], config, capsys)
    expected = "the same slide as " + ", ".join(f"d{index} (inference)" for index in range(5)) + " and 3 more"
    assert table["findings"]["d"] == expected


def test_annotations_without_lesion_or_with_oddities_are_said(tmp_path, rows, config, capsys):
    outlines(tmp_path / "a.geojson")
    outlines(tmp_path / "c.geojson", (-10, 300, 50))
    failed, _, table, _ = examined(tmp_path, rows, config, capsys)
    assert failed is None
    assert table["findings"]["a"] == "its annotation has no lesion"
    beyond, on_glass = table["findings"]["c"].split("; ")
    assert beyond == "1 outlines reach beyond the slide by 3.1e-05 mm²"  # 10 × 50 px of 0.25 µm
    assert on_glass.startswith("only 0% of the area annotated as lesion lies on tissue")
    outlines(tmp_path / "b.geojson")
    failed, _, _, report = examined(tmp_path, rows, config, capsys)
    assert "doctor: 1 error" in failed
    assert report["sheet_errors"][0]["finding"] == "no training slide has a lesion"


def test_what_annotations_ignore_is_stated_and_a_warning_only_if_there_is_nothing_else(tmp_path, rows, config, capsys):
    for slide, squares in {"b": [(600, 300, 50), (700, 400, 90)], "c": [(600, 300, 400)]}.items():
        path = Path(outlines(tmp_path / f"{slide}.geojson", *squares))
        content = json.loads(path.read_text())
        content["features"][-1]["properties"] = TUMOR | {"classification": {"name": "Ignore*"}}
        write_json(path, content)
    failed, printed, table, report = examined(tmp_path, rows, config, capsys)
    assert failed is None
    areas = [90 * 90 / 16e6, 400 * 400 / 16e6]
    assert [float(table["ignored_mm2"][slide]) for slide in "abc"] == pytest.approx([0, *areas], abs=1e-6)
    assert [row["ignored_mm2"] for row in report["slides"]][-1] is None
    assert table["verdict"].tolist() == ["ok", "ok", "warning", "ok"]
    assert table["findings"]["c"] == "all outlines of its annotation, 0.01 mm², are of the class ignore"
    assert "0.011 mm² on 2 slides are ignored: neither trained on nor judged" in printed.splitlines()


def test_unmapped_classes_of_annotations_are_an_error(tmp_path, rows, config, capsys):
    text = (tmp_path / "b.geojson").read_text()
    (tmp_path / "b.geojson").write_text(text.replace("Tumor", "Gland"))
    failed, _, table, _ = examined(tmp_path, rows, config, capsys)
    assert failed
    assert "classes that the config does not map: 'Gland'; the file has 'Gland' (1)" in table["findings"]["b"]


def test_an_annotation_that_is_an_unreviewed_prediction_is_an_error(tmp_path, rows, config, capsys):
    content = json.loads(Path(rows[0].annotation).read_text())
    (feature,) = content["features"]
    own = lesion_id(content_digest(rows[0].path), shape(feature["geometry"]))
    predicted = feature | {"id": own, "properties": TUMOR | {"classification": {"name": "Lesion"}}}
    write_json(rows[0].annotation, content | {"features": [predicted]})
    _, printed, table, _ = examined(tmp_path, rows, config, capsys)
    assert table["verdict"]["a"] == "error"
    assert "1 outline of lesion, and each is as LesionMap predicted it: nothing was edited" in printed
    assert "give them the class Accepted" in table["remedies"]["a"]
    accepted = predicted | {"properties": TUMOR | {"classification": {"name": "Accepted"}}}
    write_json(rows[0].annotation, content | {"features": [accepted]})
    assert examined(tmp_path, rows, config, capsys)[0] is None


def test_an_annotation_of_a_second_reader_that_cannot_be_used_is_a_warning(tmp_path, rows, config, capsys):
    second = tmp_path / "second.geojson"
    rows = [replace(row, annotation_2=str(second)) for row in rows]
    outlines(second, (600, 300, 50))
    failed, _, table, report = examined(tmp_path, rows, config, capsys)
    assert failed is None
    assert "annotation_2" not in "".join(table["findings"].fillna(""))
    assert report["jobs"]["import_second_annotation"] == 1
    second.write_text(second.read_text().replace("Tumor", "Gland"))
    failed, _, table, _ = examined(tmp_path, rows, config, capsys)
    assert failed is None
    found = {slide: text for slide, text in table["findings"].fillna("").items() if "annotation_2" in text}
    assert list(found) == ["c"]
    assert found["c"].startswith("annotation_2: classes that the config does not map: 'Gland'; the file has")


def test_the_stain_reference_must_be_usable_and_not_in_the_test_split(tmp_path, rows, config, capsys):
    config["stain"]["reference"] = "c"
    failed, _, table, _ = examined(tmp_path, rows, config, capsys)
    assert "1 error" in failed
    assert table["findings"]["c"] == "the stain reference is in the test split"
    (tmp_path / "c.tif").write_bytes(b"")
    _, _, _, report = examined(tmp_path, rows, config, capsys)
    assert [problem["finding"] for problem in report["sheet_errors"]] == ["the stain reference c cannot be used"]


def test_slides_on_servers_are_not_taken_for_missing(tmp_path, rows, config, capsys):
    files = str(tmp_path / "d.tsv"), str(tmp_path / "d.json"), str(machine_file(tmp_path))
    with serving(tmp_path) as server:
        config["slides"]["roots"] = [server.address]
        gone = f"{server.address}/gone.tif"
        unseen = [replace(rows[0], path=f"{server.address}/a.tif"), replace(rows[3], path=gone)]
        with pytest.raises(LesionMapError, match="1 error"):
            examine_sheet(unseen, RunSettings.of(config), *files, threads=2)
        table = pd.read_csv(files[0], sep="\t").set_index("slide")
        assert table["verdict"].to_dict() == {"a": "unseen", "d": "error"}
        assert "1 slides are on servers and unseen" in capsys.readouterr().out
        assert table.loc["d", "findings"] == f"{gone} is not there (404)"
        assert json.loads(Path(files[1]).read_text())["sheet_errors"] == []
        unseen[0] = replace(unseen[0], annotation="gone.geojson")
        with pytest.raises(LesionMapError, match="4 errors"):  # two more: no training slide, and no stain reference
            examine_sheet(unseen, RunSettings.of(config), *files, threads=2)
    assert "its annotation gone.geojson does not exist" in capsys.readouterr().out


def test_a_slide_that_its_server_leads_out_of_the_roots_is_told(tmp_path, rows, config, capsys):
    files = str(tmp_path / "d.tsv"), str(tmp_path / "d.json"), str(machine_file(tmp_path))
    with serving(tmp_path) as server:
        config["slides"]["roots"] = [server.address]
        server.redirects["/b.tif"] = 302, "http://other.example/b.tif?sig=not-to-be-told"
        unseen = [replace(row, path=f"{server.address}/{row.slide}.tif") for row in rows[:2]]
        with pytest.raises(LesionMapError):
            examine_sheet(unseen, RunSettings.of(config), *files, threads=2)
    table = pd.read_csv(files[0], sep="\t").set_index("slide")
    assert table["verdict"].to_dict() == {"a": "unseen", "b": "error"}
    named = (
        f"{server.address}/b.tif leads to http://other.example/b.tif, which is not in slides.roots ({server.address})"
    )
    assert table.loc["b", "findings"] == named
    assert "to slides.roots" in table.loc["b", "remedies"]
    assert "not-to-be-told" not in capsys.readouterr().out


def test_inference_alone_asks_for_no_training_slides(tmp_path, rows, config, capsys):
    config["model"]["path"] = "shipped.safetensors"
    failed, _, _, report = examined(tmp_path, rows[2:], config, capsys)
    assert "1 error" in failed
    assert report["sheet_errors"][0]["finding"] == "the model file shipped.safetensors does not exist"
    network = ModelSettings("resnet18", "group")
    model, broken = LesionFPN(network), str(tmp_path / "broken.safetensors")
    save_model(broken, model, ModelSettings("resnet34", "group"), {})
    config["model"]["path"] = broken
    _, printed, _, report = examined(tmp_path, rows[2:], config, capsys)
    assert "broken.safetensors cannot be used: its tensors are not those of resnet34" in printed
    assert "give the lesionmap.safetensors of a training run as model.path" in report["sheet_errors"][0]["remedy"]
    config["model"]["path"] = str(tmp_path / "whole.safetensors")
    save_model(config["model"]["path"], model, network, {})
    failed, _, table, report = examined(tmp_path, rows[2:], config, capsys)
    assert failed is None
    assert table["tiles"].tolist() == [0, 0]
    assert "train" not in report["costs"]["cpu_hours"]


def test_absent_imagenet_weights_are_said_and_not_fetched(tmp_path, rows, config, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failed, printed, _, report = examined(tmp_path, rows, config, capsys)
    assert failed is None
    (note,) = report["notes"]
    weights = tmp_path / f"resources/backbone/{config['model']['backbone']}.pth"
    assert note.startswith(f"the ImageNet weights {weights.relative_to(tmp_path)} are absent: a run downloads them")
    assert f"note: {note}" in printed
    assert not weights.exists()
    weights.parent.mkdir(parents=True)
    weights.touch()
    assert examined(tmp_path, rows, config, capsys)[3]["notes"] == []
    weights.unlink()
    config["model"] |= {"weights": "none", "norm": "group"}
    assert examined(tmp_path, rows, config, capsys)[3]["notes"] == []


def work_on(info, config, content=None, *, trained):
    settings = RunSettings.of(config)
    return predict_work(info, settings, overview_of(info, settings), Annotation(content), trained=trained)


def test_how_much_of_an_annotation_lies_on_tissue_is_stated(tmp_path, rows, config, capsys):
    outlines(rows[0].annotation, (600, 300, 50), (100, 900, 25))  # 2500 px² on tissue, 625 on glass
    failed, printed, table, report = examined(tmp_path, rows, config, capsys)
    assert failed is None
    assert table["on_tissue"].tolist() == ["lesion 80%", "lesion 100%", "lesion 100%", ""]
    assert report["slides"][0]["on_tissue"] == "lesion 80%"
    assert "lies on tissue" not in printed


def test_an_annotation_of_slides_in_another_frame_is_a_warning(tmp_path, rows, config, capsys):
    outlines(rows[1].annotation, (600 * 0.25, 300 * 0.25, 50 * 0.25))  # in µm
    failed, printed, table, _ = examined(tmp_path, rows, config, capsys)
    assert failed is None
    assert table["verdict"].tolist() == ["ok", "warning", "ok", "ok"]
    assert table["on_tissue"]["b"] == "lesion 0%"
    assert "only 0% of the area annotated as lesion lies on tissue: its coordinates seem to be µm or pixels" in printed
    assert "Remedy: look at it on the slide, and export it again in level-0 pixels of this file" in printed


def test_an_annotation_is_not_judged_where_no_overview_was_seen(tmp_path, rows, config, capsys, monkeypatch):
    monkeypatch.setattr(costs, "MOST_OVERVIEW_PX", 1)
    outlines(rows[1].annotation, (150, 75, 12))
    _, printed, table, _ = examined(tmp_path, rows, config, capsys)
    assert table["on_tissue"].tolist() == ["", "", "", ""]
    assert "lies on tissue" not in printed


def stippled(shape):
    """Pink tissue of uneven density and odd shape, with holes, on white."""
    rng, (height, width) = np.random.default_rng(0), shape
    rows, columns = np.mgrid[:height, :width]
    inside = ((rows - 0.4 * height) / (0.35 * height)) ** 2 + ((columns - 0.55 * width) / (0.4 * width)) ** 2 < 1
    inside &= (rows // 190 + columns // 310) % 5 > 0
    image = np.full((height, width, 3), 250, dtype=np.uint8)
    image[inside] = np.array([200, 90, 160]) + rng.integers(-25, 25, (int(inside.sum()), 3))
    return image


@pytest.mark.parametrize(("region_px", "tile_px", "min_tissue_fraction"), [(512, 64, 0.1), (1024, 128, 0.4)])
def test_regions_and_tiles_are_those_that_the_run_cuts(tmp_path, config, region_px, tile_px, min_tissue_fraction):
    """Also those that only an outline keeps, and without what an outline says to ignore."""
    info = info_of(write_tiff(tmp_path / "s.tif", stippled((2300, 3100)), factors=(1, 4)))
    path = Path(outlines(tmp_path / "a.geojson", (40, 2200, 90), (1500, 700, 600)))
    drawn = json.loads(path.read_text())
    drawn["features"][1]["properties"] = TUMOR | {"classification": {"name": "Ignore*"}}
    write_json(path, drawn)
    tiling = {"region_px": region_px, "tile_px": tile_px, "min_tissue_fraction": min_tissue_fraction}
    config["tiles"] |= tiling
    settings = RunSettings.of(config)
    content = canonical(read_annotation(str(path), info, None), info, settings.annotations)
    write_json(tmp_path / "canonical.geojson", content)
    paths = [str(tmp_path / name) for name in ("tissue.tif", "canonical.geojson", "s.h5")]
    find_tissue(info, paths[0], settings.tissue)
    match = StainMatch(PROFILE, PROFILE, (1.0, 1.0))
    extraction = Extraction(settings.tiles.spec, min_tissue_fraction, 0.0, match, TileCodec(), stored=False)
    write_json(tmp_path / "location.json", {})
    extract_tiles(info, *paths, extraction, provenance={}, location=str(tmp_path / "location.json"))
    with h5py.File(paths[2]) as store:
        cut = len(store["regions/xy"]), len(store["tiles/region"])
    found = work_on(info, config, content, trained=True)
    assert found.regions == cut[0]
    assert found.tiles == pytest.approx(cut[1], rel=0.01), "outlines are looked at in the low view"
    without = work_on(info, config, trained=True)
    assert without.regions < found.regions + 1
    assert without.tiles > found.tiles
    assert found.store_gb == pytest.approx(sum(cut) * tile_px**2 * 2.6 / 1e9, rel=0.01, abs=6e-4)


def test_the_first_pass_takes_the_tiles_with_tissue(tmp_path, tissue, config):
    info = info_of(write_tiff(tmp_path / "s.tif", tissue, factors=(1, 4)))
    # tiles of 64 px at 2.5 µm/px are 640 px: x 512–1023 meets the first two, y 256–767 the first two
    assert work_on(info, config, trained=False).inference_tiles == 4


def test_reading_takes_its_time(four_regions, config):
    """More pixels and a slower codec take longer."""
    config["tiles"] |= {"region_px": 2048, "tile_px": 512}
    small = work_on(four_regions, config, trained=False)
    lossless = work_on(four_regions, config, trained=True)
    config["tiles"] |= {"codec": "jpegxl", "quality": 100}
    slow = work_on(four_regions, config, trained=True)
    assert 0 < small.cpu_hours < lossless.cpu_hours < slow.cpu_hours


def test_a_slide_without_a_level_for_the_tissue_is_looked_at_more_coarsely(four_regions, config, monkeypatch):
    """Levels of 4096 and of 256 px; the latter is 4 µm/px."""
    config["tissue"]["mpp"] = 3.0
    settings = RunSettings.of(config)
    assert overview_of(four_regions, settings).basis == "tissue found at 3 µm/px"
    monkeypatch.setattr(costs, "MOST_OVERVIEW_PX", 256**2)
    assert overview_of(four_regions, settings).basis == "tissue found at 6 µm/px"


def test_options_of_inference_cost_their_passes(tmp_path, tissue, config):
    info = info_of(write_tiff(tmp_path / "s.tif", tissue, factors=(1, 4)))
    config["tiles"]["min_tissue_fraction"] = 0
    usual = work_on(info, config, trained=True)
    config["inference"] |= {"overlap": 0.5, "refine": "unsure"}
    found = work_on(info, config, trained=False)
    # steps of 320 px: x 512–1023 meets tiles from 0, 320, 640, 960, y 256–767 those from 0, 320, 640; and the regions
    assert found.inference_tiles == 4 * 3 + usual.regions + usual.tiles
    once = cost_of([("test", found)], config)
    assert "refine: unsure as if all" in once.basis[0]
    config["inference"]["flips"] = True
    four_times = cost_of([("test", found)], config).cpu_hours["infer"]
    assert four_times == pytest.approx(4 * once.cpu_hours["infer"], abs=2e-4)


def cost_of(work, config, jobs=None):
    return costs_of(work, RunSettings.of(config), MACHINE, jobs or {})


@pytest.fixture(scope="module")
def four_regions(tmp_path_factory):
    """A slide of four regions of 2048 px."""
    image = np.full((4096, 4096, 3), 250, dtype=np.uint8)
    image[300:, 200:] = 200, 90, 160
    return info_of(write_tiff(tmp_path_factory.mktemp("slide") / "s.tif", image, factors=(1, 16)))


@pytest.mark.parametrize(
    ("asked", "bytes_per_px"),
    [({"codec": "jpeg"}, 0.4), ({"codec": "jpegxl"}, 0.25), ({"codec": "jpegxl", "quality": 100}, 1.3), ({}, 2.6)],
)
@pytest.mark.parametrize("store", ["keep", "none"])
def test_disk_is_predicted_by_codec_and_by_what_is_stored(four_regions, config, asked, bytes_per_px, store):
    config["tiles"] |= {"region_px": 2048, "tile_px": 512, "store": store} | asked
    found = work_on(four_regions, config, trained=True)
    images = found.regions + (found.tiles if store == "keep" else 0)
    assert found.regions == 4
    assert found.store_gb == pytest.approx(images * 512**2 * bytes_per_px / 1e9, abs=6e-4)


def test_blank_slides_are_not_counted(tmp_path, tissue, config):
    blank = info_of(write_tiff(tmp_path / "blank.tif", np.full_like(tissue, 250)))
    with pytest.raises(SlideError, match="no tissue was found at 4 µm/px"):
        work_on(blank, config, trained=True)


def test_damage_that_an_overview_of_slides_shows_is_a_warning(tmp_path, rows, config, capsys):
    whole = write_tiff(tmp_path / "e.tif", np.full((1100, 1600, 3), (200, 90, 160), dtype=np.uint8))
    slide = SlideRow("e", str(damage(whole, (700, 400))), "inference")
    failed, _, table, _ = examined(tmp_path, [*rows, slide], config, capsys)
    assert failed is None
    assert table["verdict"]["e"] == "warning"
    assert "of an overview cannot be read" in table["findings"]["e"]


def test_fluorescence_among_the_slides_is_an_error(tmp_path, rows, config, capsys):
    blue = np.zeros((1100, 1600, 3), dtype=np.uint8)
    blue[..., 2] = np.random.default_rng(0).integers(0, 200, blue.shape[:2])
    slide = SlideRow("e", str(write_tiff(tmp_path / "e.tif", blue, factors=(1, 2, 8))), "inference")
    failed, _, table, _ = examined(tmp_path, [*rows, slide], config, capsys)
    assert failed is not None
    assert table["verdict"]["e"] == "error"
    assert "it is no brightfield image: its structures shine in pure colours" in table["findings"]["e"]


@pytest.mark.parametrize("backbone", FORWARD_FLOPS)
def test_the_networks_operations_are_what_torch_counts(backbone):
    model = LesionFPN(ModelSettings(backbone, "group"))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, 512, 512, dtype=torch.uint8))
    assert FORWARD_FLOPS[backbone] == pytest.approx(counter.get_total_flops(), rel=0.01)


@pytest.mark.parametrize(
    ("schedule", "passes"),
    [
        ("joint", 3 * (2 * 2 + 100) + 51),  # three for forward and backward; the low view twice
        ("sequential", 3 * (2 * 2 + 100) + 51),
        ("low_only", 3 * 2 + 1),
        ("high_only", 3 * 100 + 51),
    ],
)
def test_each_schedule_costs_its_passes(config, schedule, passes):
    config["tiles"]["tile_px"], config["train"]["epochs"], config["train"]["schedule"] = 512, 10, schedule
    work = [("train", Work(2, 100, 0, "", 0.0, 0, 0)), ("val", Work(1, 50, 0, "", 0.0, 0, 0))]
    hours = 10 * passes / 3 * MACHINE.training_s / 3600
    assert cost_of(work, config).cpu_hours["train"] == pytest.approx(hours, abs=1e-4)


def test_an_automatic_tile_batch_costs_what_it_may_take_on_a_cpu(config):
    config["train"]["tile_batch"] = 4
    assert cost_of([], config).training_memory_gb == 2 + 4 * 0.4
    config["train"]["tile_batch"] = "auto"
    assert cost_of([], config).training_memory_gb == 2 + 4 * 0.4


def test_costs_are_the_sums_that_arithmetic_gives(config):
    config["tiles"]["tile_px"], config["train"]["epochs"] = 512, 10
    work = [("train", Work(2, 100, 7, "", 0.0, 1.5, 0.5)), ("val", Work(1, 50, 3, "", 0.0, 0.5, 0.25))]
    costs = cost_of(work, config, {"fit_stain": 3, "train": 1, "conclude": 2})
    assert (costs.slides, costs.regions, costs.tiles, costs.inference_tiles) == (2, 3, 150, 10)
    assert costs.disk_gb == 2.0
    passes = 10 * (3 * (2 * 2 + 100) + 51)  # three for forward and backward
    assert costs.cpu_hours["train"] == pytest.approx(passes / 3 * MACHINE.training_s / 3600, abs=1e-4)
    assert costs.cpu_hours["infer"] == pytest.approx(10 * MACHINE.forward_s / 3600, abs=1e-4)
    jobs_s = (3 * 5.5 + 5.0 + 2 * 0.4) * MACHINE.start_s / 2.15  # as many as measured, on a slower machine
    assert costs.cpu_hours["start jobs, fit stains, draw"] == pytest.approx(jobs_s / 3600, abs=1e-4)
    assert f"in all: {sum(costs.cpu_hours.values()):.2g} hours" in "\n".join(costs.lines())
    assert costs.gpu_hours["infer"] == pytest.approx(10 * FORWARD_FLOPS["resnet50"] / 20e12 / 3600, abs=1e-4)
    assert costs.cpu_hours["read and cut"] == 0.75
    assert any("assumed, not measured" in line for line in costs.basis)


@pytest.fixture
def model_of(tmp_path, config):
    """Sets as model.path a model that was trained and validated on given slides."""

    def save(training, validation=(), **metadata):
        slides = [{path.stem: content_digest(path) for path in map(Path, part)} for part in (training, validation)]
        config["model"]["path"] = str(tmp_path / "given.safetensors")
        network = ModelSettings("resnet18", "group")
        recorded = dict(zip(("training_slides", "validation_slides"), slides, strict=True)) | metadata
        save_model(config["model"]["path"], LesionFPN(network), network, recorded)

    return save


@pytest.mark.parametrize("on_leakage", ["mark", "refuse"])
def test_leakage_of_a_given_model_is_found_by_content_and_patient(tmp_path, rows, config, capsys, model_of, on_leakage):
    """Slide c is tested, b and e are of the split val, and d is for inference: e was validated on."""
    copy = shutil.copy(rows[2].path, tmp_path / "old_name.tif")
    shutil.copy(rows[0].path, tmp_path / "e.tif")
    judged = [replace(rows[1], split="val"), rows[2], rows[3], replace(rows[0], slide="e", split="val")]
    patients = {"old_name": patient_digest("someone"), "b2": patient_digest("p1")}
    model_of([copy, rows[3].path], [tmp_path / "e.tif"], patients=patients | {"d": patient_digest("p1")})
    config["evaluation"]["on_leakage"] = on_leakage
    failed, printed, table, report = examined(tmp_path, judged, config, capsys)
    found = {
        "b": "not independent of the model: same patient as a training slide of the model (d)",
        "c": "not independent of the model: training slide of the model (old_name)",
        "d": "",
        "e": "",
    }
    assert table["findings"].to_dict() == found
    verdict = "warning" if on_leakage == "mark" else "error"
    assert table["verdict"].to_dict() == {"b": verdict, "c": verdict, "d": "ok", "e": "ok"}
    assert (failed is None) is (on_leakage == "mark")
    remedies = {"mark": "judge by other slides", "refuse": "give them the split inference"}
    assert remedies[on_leakage] in printed
    assert report["notes"] == []


def test_leakage_that_a_given_model_cannot_show_is_noted(tmp_path, rows, config, capsys, model_of):
    model_of([rows[0].path])
    failed, printed, table, report = examined(tmp_path, rows[2:], config, capsys)
    assert failed is None
    assert set(table["verdict"]) == {"ok"}
    assert report["notes"] == [UNKNOWN_PATIENTS]
    assert f"note: {UNKNOWN_PATIENTS}" in printed
