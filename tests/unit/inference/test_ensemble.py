"""An ensemble's map against the maps that its members make alone."""

from dataclasses import asdict, replace
from itertools import count

import numpy as np
import pytest
import tifffile
import torch
from engine_parts import Pixelwise
from lesionmap.errors import ModelError
from lesionmap.files.records import read_json, sha256, write_json
from lesionmap.geometry.tiling import TileSpec
from lesionmap.inference import map_slide as mapping
from lesionmap.inference.engines import EngineFiles, EngineSettings
from lesionmap.inference.ensemble import mean_of
from lesionmap.inference.map_slide import MapFiles, MapInputs, map_slide, mean_threshold
from lesionmap.inference.settings import MapSettings
from lesionmap.maps.map_file import MapFile
from lesionmap.network.model import LesionFPN
from lesionmap.network.model_file import save_model
from lesionmap.network.onnx_export import export_model
from lesionmap.slides.slide import Slide
from lesionmap.stain.table import StainMatch
from narrow_resnet import NARROW
from pyramids import damage, info_of, write_tiff
from stained import OTHER_HE, PROFILE, profile

SPEC = TileSpec(region_px=128, tile_px=32, mpp=0.25)
SETTINGS = MapSettings(SPEC, magnification="match_training", max_unreadable_fraction=0.6)
WIDTH, HEIGHT = 437, 309  # level-0 pixels; four columns and three rows of regions
FUSIONS = ("mean", "learned", "max")
EPOCHS = ({"val_low_threshold": 0.2}, {"val_low_threshold": 0.5}, {"val_low_threshold": 0.8})


def saved_model(folder, number, **changes):
    """A random network in its files."""
    network = replace(NARROW, fusion=FUSIONS[number])
    torch.manual_seed(number)
    model = LesionFPN(network)
    torch.nn.init.normal_(model.head.weight, std=0.5)
    if number == 1:
        torch.nn.init.constant_(model.fusion.a, -1.5)
    facts = {"tiles": asdict(SPEC), "provenance": {"code": f"c{number}"}, "stain_reference": vars(PROFILE)}
    files = EngineFiles(*(str(folder / f"m{number}{end}") for end in (".safetensors", ".onnx", ".json")))
    save_model(files.model, model, network, facts | {"epoch": EPOCHS[number]} | changes)
    export_model(files.model, files.onnx, files.check)
    return files


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A slide with a gradient of colours, a hole in its tissue and a tile that cannot be read; and three models."""
    folder = tmp_path_factory.mktemp("ensemble")
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    image = np.random.default_rng(0).integers(0, 40, (HEIGHT, WIDTH, 3)) + np.array([120, 60, 130])
    image[..., 0] += (x // 5).astype(int)
    image[..., 1] += (y // 4).astype(int)
    info = info_of(write_tiff(folder / "s.tif", image.clip(0, 255).astype(np.uint8)))
    damage(folder / "s.tif", (400, 300))
    tissue = np.full((31, 44), 255, dtype=np.uint8)  # 10 level-0 pixels each
    tissue[9:17, 20:33] = tissue[:4, :13] = 0
    tifffile.imwrite(folder / "tissue.tif", tissue)
    write_json(folder / "stain.json", StainMatch(profile(OTHER_HE), PROFILE, (0.9, 1.1)).as_record())
    return folder, info, [saved_model(folder, number) for number in range(3)]


def made(scene, folder, models, settings=SETTINGS, threads=2):
    """Paths of what is made with some of the models."""
    where, info, _ = scene
    folder.mkdir()
    names = ("probability.ome.tif", "scores.ome.tif", "inference.json", "uncertainty.ome.tif")
    files = MapFiles(*(str(folder / name) for name in names[: None if len(models) > 1 else 3]))
    inputs = MapInputs(str(where / "tissue.tif"), str(where / "stain.json"), models)
    engine = EngineSettings(precision="fp32")
    map_slide(info, inputs, files, settings, engine, provenance={"code": "d"}, threads=threads)
    return files


def image_of(path):
    with MapFile(path) as opened:
        return opened[slice(0, opened.shape[0])]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"overlap": 0.25, "flips": True},
        {"magnification": "patent"},
        {"refine": "all", "overlap": 0.25},
        {"refine": "unsure", "unsure": (0.49, 0.51)},
        {"refine": "lesion", "threshold": 0.8, "flips": True},
    ],
)
def test_the_map_is_the_mean_of_the_members_maps_and_the_spread_their_standard_deviation(scene, tmp_path, changes):
    settings = replace(SETTINGS, **changes)
    alone = [made(scene, tmp_path / str(number), [model], settings) for number, model in enumerate(scene[2])]
    together = made(scene, tmp_path / "all", scene[2], settings)
    published = np.array([image_of(files.probability) for files in alone]).astype(float)
    scores = np.array([image_of(files.scores) for files in alone])
    members = np.where(scores, 1 / (1 + np.exp((32768.0 - scores) / 1024)), 0)
    assert np.abs(image_of(together.probability) - published.mean(axis=0)).max() <= 1
    mean, spread = image_of(together.scores), image_of(together.uncertainty)
    as_probability = np.where(mean, 1 / (1 + np.exp((32768.0 - mean) / 1024)), 0)
    np.testing.assert_allclose(as_probability, members.mean(axis=0), atol=0.5 / 1024 / 4 + 1e-6)
    np.testing.assert_allclose(spread, 510 * members.std(axis=0), atol=0.5 + 1e-3)
    np.testing.assert_array_equal(mean == 0, (scores == 0).all(axis=0))
    assert np.percentile(spread[mean > 0], 50) > 10
    assert 0 < (mean == 0).mean() < 0.5
    record, records = read_json(together.record), [read_json(files.record) for files in alone]
    for key in ("seam_measure", "refined"):
        assert [member[key] for member in record["members"]] == [one[key] for one in records]
    for key in ("slide", "map", "tiles", "unreadable"):
        assert record[key] == records[0][key]
    assert record["tiles"]["unreadable"] > 0
    if settings.refine == "unsure":
        assert len({one["refined"]["regions"] for one in records}) > 1


def test_the_record_says_who_the_members_are_and_how_far_they_agree(scene, tmp_path):
    files = made(scene, tmp_path / "out", scene[2])
    record = read_json(files.record)
    on = image_of(files.scores) > 0
    assert record["mean_uncertainty"] == pytest.approx((image_of(files.uncertainty)[on] / 510).mean(), abs=2e-4)
    paths = [one.model for one in scene[2]]
    assert [(one["model"], one["sha256"]) for one in record["members"]] == [(path, sha256(path)) for path in paths]
    assert [one["validated_threshold"] for one in record["members"]] == [0.2, 0.5, 0.8]
    assert [engine["precision"] for engine in record["provenance"].pop("engine")] == ["fp32"] * 3
    training = [{"code": f"c{number}"} for number in range(3)]
    models = [sha256(path) for path in paths]
    assert record["provenance"] == {"code": "d", "model": models, "model_training": training}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        ["probability.ome.tif", "scores.ome.tif", "inference.json", "uncertainty.ome.tif"]
    )
    with MapFile(files.scores) as scores, MapFile(files.uncertainty) as uncertainty:
        assert uncertainty.metadata == scores.metadata
        assert (uncertainty.dtype, uncertainty.shape, uncertainty.mpp) == (np.uint8, scores.shape, scores.mpp)
        assert (scores.metadata["validated_threshold"], scores.metadata["view"]) == (0.5, "low")
        assert scores.metadata["provenance"]["model_training"] == training
    with tifffile.TiffFile(files.uncertainty) as tiff:
        said = "standard deviation of the models' lesion probabilities x 510, 0 without tissue"
        assert said in tiff.pages.first.description
        assert tiff.is_ome


@pytest.mark.parametrize("refine", ["none", "all"])
def test_the_slide_is_read_once_and_threads_change_no_byte(scene, tmp_path, monkeypatch, refine):
    boxes, read = [], Slide.read
    monkeypatch.setattr(Slide, "read", lambda slide, *box: boxes.append(box) or read(slide, *box))
    settings, n, written = replace(SETTINGS, refine=refine), [], []
    for name, models, threads in (("one", scene[2][:1], 2), ("all", scene[2], 2), ("again", scene[2], 1)):
        boxes.clear()
        files = made(scene, tmp_path / name, models, settings, threads)
        n.append(len(boxes))
        written.append([(tmp_path / name / path.name).read_bytes() for path in sorted((tmp_path / name).iterdir())])
    assert n[0] == n[1] > 10
    assert files.uncertainty
    assert written[1] == written[2]


def scores_of(logits):
    return np.rint(np.asarray(logits) * 1024 + 32768).astype(np.uint16)


def test_mean_and_spread_by_hand(tmp_path):
    """Two members; of the first row the columns are: 0.2 and 0.6, sure and wrong, one without a score, none."""
    maps = np.zeros((2, 35, 5), dtype=np.uint16)
    maps[:, 0, 0] = scores_of([np.log(0.2 / 0.8), np.log(0.6 / 0.4)])
    maps[:, 0, 1] = scores_of([-31, 31])
    maps[:, 0, 2] = 0, scores_of(np.log(0.9 / 0.1))
    maps[:, 0, 4] = scores_of([20, 22])
    maps[:, 34, 3] = scores_of([np.log(0.3 / 0.7), np.log(0.4 / 0.6)])
    found = mean_of(maps, tmp_path)
    np.testing.assert_array_equal(found.spread[0], [102, 255, 230, 0, 0])  # 0.2, 0.5 and 0.45, × 510 (229.5 is even)
    assert found.spread[34].tolist() == [0, 0, 0, 26, 0]  # 25.5 to even
    # 1 - p is the mean of exp(-20) and exp(-22), so the logit is 20 + ln 2 - ln(1 + exp(-2))
    logits = [np.log(0.4 / 0.6), 0, np.log(0.45 / 0.55), -np.inf, 20 + np.log(2) - np.log(1 + np.exp(-2))]
    expected = np.append(scores_of(logits[:3]), [0, scores_of(logits[4])])
    assert np.abs(found.scores[0].astype(int) - expected.astype(int)).max() <= 1
    assert found.scores[0, 3] == 0
    assert not found.scores[1:34].any()
    assert found.mean_sd == pytest.approx((0.2 + 0.5 + 0.45 + 0 + 0.05) / 5, abs=1e-3)
    assert found.mean_differences == pytest.approx([found.mean_sd] * 2, abs=1e-6)


def test_equal_members_have_their_own_map_and_no_spread(tmp_path):
    scores = np.arange(65536, dtype=np.uint16).reshape(512, 128)
    found = mean_of([scores] * 5, tmp_path)
    np.testing.assert_array_equal(found.scores, scores)
    assert not found.spread.any()
    assert found.mean_differences == pytest.approx([0] * 5, abs=1e-7)


def test_who_differs_from_the_mean_is_known(tmp_path):
    """Of 0.1, 0.1 and 0.7 the mean is 0.3, and the standard deviation the root of 0.08."""
    maps = np.tile(scores_of(np.log(np.array([1, 1, 7]) / [9, 9, 3]))[:, None, None], (1, 3, 4))
    found = mean_of(maps, tmp_path)
    assert found.mean_differences == pytest.approx([0.2, 0.2, 0.4], abs=2e-4)
    assert found.mean_sd == pytest.approx(0.08**0.5, abs=2e-4)
    assert (found.spread == 144).all()


def test_a_map_without_tissue_has_no_score_and_no_spread(tmp_path):
    found = mean_of(np.zeros((2, 5, 7), np.uint16), tmp_path)
    assert (found.scores.any(), found.spread.any(), found.mean_sd, found.mean_differences) == (False, False, 0, [0, 0])


def test_the_threshold_is_the_mean_of_those_that_all_members_have():
    assert mean_threshold([0.25, 0.5, 0.9]) == pytest.approx(0.55)
    assert mean_threshold([0.25]) == 0.25
    assert mean_threshold([0.25, None, 0.9]) is None


OTHERS = [
    ({"tiles": asdict(SPEC) | {"tile_px": 64}}, r"other tiles\.tile_px \(32 and 64\)\."),
    ({"stain_reference": vars(profile(OTHER_HE))}, r"other stain references\."),
    (
        {"tiles": asdict(SPEC) | {"mpp": 0.5, "codec": "x"}, "stain_reference": vars(profile(OTHER_HE))},
        r"other tiles\.mpp \(0\.25 and 0\.5\) and stain references\.",
    ),
]


@pytest.mark.parametrize(("changes", "said"), OTHERS)
def test_models_that_see_other_tiles_or_stains_are_refused_by_name(scene, tmp_path, changes, said):
    other = saved_model(tmp_path, 2, **changes)
    named = rf"^map_slide: the models {scene[2][0].model} and {other.model} cannot be one ensemble.*"
    with pytest.raises(ModelError, match=named + said + r" Remedy: leave one of them out, or train both with the same"):
        made(scene, tmp_path / "out", [*scene[2][:2], other])
    assert list((tmp_path / "out").iterdir()) == []


def test_an_ensemble_of_fewer_than_two_is_refused(scene, tmp_path):
    inputs = [MapInputs(str(scene[0] / "tissue.tif"), str(scene[0] / "stain.json"), scene[2][:n]) for n in (0, 1)]
    for one, uncertainty, said in ((inputs[0], None, "0 .* 1 or more"), (inputs[1], "u.ome.tif", "1 .* 2 or more")):
        files = MapFiles("p.ome.tif", "s.ome.tif", "r.json", uncertainty)
        with pytest.raises(ModelError, match=f"there are {said} are needed"):
            map_slide(scene[1], one, files, SETTINGS, EngineSettings(), provenance={}, threads=1)


def test_a_member_whose_engine_file_is_damaged_is_named(scene, tmp_path):
    broken = replace(scene[2][1], onnx=str(tmp_path / "cut.onnx"))
    whole = (scene[0] / "m1.onnx").read_bytes()
    (tmp_path / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    inputs = MapInputs(str(scene[0] / "tissue.tif"), str(scene[0] / "stain.json"), [scene[2][0], broken])
    files = MapFiles(*(str(tmp_path / name) for name in ("p", "s", "r", "u")))
    with pytest.raises(ModelError, match=rf"no engine can run the model {broken.model} .*Remedy: delete {broken.onnx}"):
        map_slide(scene[1], inputs, files, SETTINGS, EngineSettings("openvino"), provenance={}, threads=1)


@pytest.mark.parametrize(("refine", "good_tiles"), [("none", 0), ("all", 12)])
def test_a_member_that_gives_no_number_is_named(scene, tmp_path, monkeypatch, refine, good_tiles):
    """In the first pass, or only in the second."""
    calls = count()

    def opened(files, *_):
        bad = files is scene[2][1]
        engine = Pixelwise(lambda images: images[..., 0] * (np.nan if bad and next(calls) >= good_tiles else 0.01))
        engine.model = files.model
        return engine, {}

    monkeypatch.setattr(mapping, "open_engine", opened)
    with pytest.raises(ModelError) as raised:
        made(scene, tmp_path / "out", scene[2], replace(SETTINGS, refine=refine))
    assert f"the model {scene[2][1].model} gives no probability on slide s1" in raised.value.finding
    assert raised.value.slide is None
