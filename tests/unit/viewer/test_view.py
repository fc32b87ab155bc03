"""Whole views: what the viewer is told, that it is all there, and that no text of a file can break out of it."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluated import scores_of
from lesion_maps import write_outlines
from lesionmap.errors import AnnotationError, SlideError
from lesionmap.files.pictures import write_tiff as write_mask
from lesionmap.files.records import read_json, write_json
from lesionmap.geometry.resampling import block_mean
from lesionmap.geometry.tiling import map_size
from lesionmap.jobs.quarantine import write_quarantined
from lesionmap.maps.ome_tiff import MapNotes, write_map
from lesionmap.slides.slide import SlideInfo
from lesionmap.stain.profile import StainProfile
from lesionmap.stain.table import StainMatch
from lesionmap.viewer.view import ViewedFiles, as_script, cut_view
from pyramids import damage, info_of, write_tiff
from shapely.geometry import box, mapping

GLASS = (240, 241, 242)
TISSUE = (300, 200, 2300, 1500)  # x, y, width, height, level-0 pixels
REFERENCE = StainProfile(((0.6, 0.8, 0.0), (0.0, 1.0, 0.0)), (1.2, 0.8), 9, 0.0, "vahadane", "ok")
MATCH = StainMatch(replace(REFERENCE, white_point=GLASS), REFERENCE, (1.25, 0.5))
PROVENANCE = {"software": "LesionMap 9"}
HOSTILE = "</script><script>alert(1)</script>\u2028\u2029'\"&<!--"


@pytest.fixture(scope="module")
def info(tmp_path_factory: pytest.TempPathFactory) -> SlideInfo:
    """A slide of 3001 × 2003 px of glass with a box of noise for tissue."""
    image = np.full((2003, 3001, 3), GLASS, dtype=np.uint8)
    x, y, width, height = TISSUE
    tissue = np.random.default_rng(0).integers(60, 200, (height // 4, width // 4, 3), dtype=np.uint8)
    image[y : y + height, x : x + width] = np.kron(tissue, np.ones((4, 4, 1), dtype=np.uint8))
    return info_of(write_tiff(tmp_path_factory.mktemp("slide") / "slide.tif", image, factors=(1, 4)))


def lesion_map(info: SlideInfo) -> np.ndarray:
    """Three lesions of 204 / 255 on 51 / 255, of 4, 400 and 100 map pixels of 10 level-0 pixels."""
    width, height = map_size(info.size_lv0, 2.5 / info.mpp)
    probability_u8 = np.zeros((height, width), dtype=np.uint8)
    probability_u8[20:170, 30:260] = 51
    probability_u8[30:32, 40:42] = probability_u8[60:80, 100:120] = probability_u8[150:160, 230:240] = 204
    return probability_u8


@pytest.fixture
def files(info: SlideInfo, tmp_path: Path) -> ViewedFiles:
    probability_u8 = lesion_map(info)
    metadata = {"unreadable": [], "threshold": 0.5, "provenance": {}}
    write_outlines(
        tmp_path / "lesions.geojson", probability_u8 > 127, scores_of(probability_u8 / 255), 10, info, metadata
    )
    write_map(tmp_path / "p.ome.tif", probability_u8, MapNotes("s1", "lesion probability", 2.5, metadata), block_mean)
    codes = np.zeros((63, 94), dtype=np.uint8)
    codes[7:53, 10:81] = 255
    write_mask(tmp_path / "tissue.tif", codes, mpp=8)
    write_json(tmp_path / "stain.json", MATCH.as_record())
    return ViewedFiles(
        *(str(tmp_path / name) for name in ("stain.json", "tissue.tif", "p.ome.tif", "lesions.tif", "lesions.geojson")),
        None,
    )


def annotate(path: Path, *outlines: tuple[str, str, tuple[float, float, float, float]]) -> str:
    """Write a canonical annotation: class, name and box of each outline."""
    features = [
        {"properties": {"class": label, "name": name, "area_mm2": 1.0}, "geometry": mapping(box(*corners))}
        for label, name, corners in outlines
    ]
    write_json(path, {"type": "FeatureCollection", "features": features})
    return str(path)


def view_of(info: SlideInfo, files: ViewedFiles, folder: Path, detail: str = "lesions") -> dict[str, Any]:
    paths = str(folder / "view"), str(folder / "overlay.png")
    cut_view(info, files, *paths, detail=detail, provenance=PROVENANCE, threads=1)
    return read_view(folder / "view")


def read_view(view: Path) -> dict[str, Any]:
    text = (view / "view.js").read_text(encoding="ascii")
    found = re.fullmatch(r"window\.lesionmapView = JSON\.parse\('(\{.*\})'\);\n", text)
    assert found
    content: dict[str, Any] = json.loads(found[1].replace("\\\\", "\\"))
    return content


def listed(runs: list[list[int]], folder: str) -> set[str]:
    return {f"{folder}/{zoom}/{x}_{row}.js" for zoom, row, first, last in runs for x in range(first, last + 1)}


def written(view: Path) -> set[str]:
    return {str(path.relative_to(view)) for path in view.rglob("*") if path.is_file()}


@pytest.mark.parametrize("detail", ["lesions", "all", "none"])
def test_the_tiles_that_are_listed_are_there_and_no_others(
    info: SlideInfo, files: ViewedFiles, tmp_path: Path, detail: str
) -> None:
    view = view_of(info, files, tmp_path, detail)
    tiles = listed(view["picture"]["tiles"], "slide") | listed(view["probability"]["tiles"], "probability")
    assert written(tmp_path / "view") == tiles | {"view.js"}
    assert (view["native"], view["tile_px"], view["picture"]["base"], view["probability"]["zoom"]) == (3, 512, 0, 0)


def test_details_are_where_they_are_wanted(
    info: SlideInfo, files: ViewedFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tissue fills native tiles (0, 0) to (5, 3); lesions lie in (0, 0), in (1, 1) and (2, 1), in (4, 2) and (4, 3)."""
    monkeypatch.setattr("lesionmap.viewer.negatives.SAMPLES", 0)
    around = {(0, 0), (1, 1), (2, 1), (4, 2), (4, 3)}
    beside = {(1, 0), (2, 0)}  # within 100 µm, 400 px, of a lesion
    seen = {}
    for detail in ("lesions", "all", "none"):
        view = view_of(info, files, tmp_path, detail)
        names = listed(view["picture"]["tiles"], "")
        seen[detail] = {tuple(map(int, name[3:-3].split("_"))) for name in names if name.startswith("/3/")}
        assert view["detail"]["mode"] == detail
        assert view["detail"]["lesions"] == 3
        assert view["detail"]["without"] == (3 if detail == "none" else 0)
    assert around | beside <= seen["lesions"] < seen["all"]
    assert seen["all"] == {(x, y) for x in range(6) for y in range(4)}
    assert (5, 0) not in seen["lesions"]
    assert not seen["none"]


def test_lesions_beyond_the_limit_are_counted(
    info: SlideInfo, files: ViewedFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lesionmap.viewer.view.MARGIN_UM", 0)
    monkeypatch.setattr("lesionmap.viewer.negatives.SAMPLES", 0)
    monkeypatch.setattr("lesionmap.viewer.view.MOST_DETAIL_TILES", 2)
    view = view_of(info, files, tmp_path)
    assert [run for run in view["picture"]["tiles"] if run[0] == 3] == [[3, 1, 1, 2]]  # the largest lesion's
    assert view["detail"] == {"mode": "lesions", "lesions": 3, "without": 2}


def test_what_is_to_be_ignored_is_shown_last_with_its_area_and_not_in_detail(
    info: SlideInfo, files: ViewedFiles, tmp_path: Path
) -> None:
    boxes = [("ignore", "Ignore*", (0, 1600, 300, 1700)), ("ignore", "pen", (200, 1650, 400, 1700))]
    boxes += [("fat", "Fat", (2000, 1700, 2040, 1790))]
    view = view_of(info, replace(files, annotation=annotate(tmp_path / "a.geojson", *boxes)), tmp_path)
    fat, ignored = view["annotated"]
    assert (fat["class"], ignored["class"], ignored["names"], ignored["n"]) == ("fat", "ignore", ["Ignore*", "pen"], 2)
    assert ignored["area_mm2"] == pytest.approx((300 * 100 + 100 * 50) * 0.0625e-6, abs=1e-6)
    assert view["detail"]["lesions"] == 3


def test_annotated_lesions_are_shown_in_detail_too(
    info: SlideInfo, files: ViewedFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lesionmap.viewer.view.MARGIN_UM", 0)
    monkeypatch.setattr("lesionmap.viewer.negatives.SAMPLES", 0)
    outlines = ("lesion", "Tumor", (2100, 600, 2200, 700)), ("fat", "Fat", (700, 1600, 800, 1650))
    annotation = annotate(tmp_path / "a.geojson", *outlines)
    view = view_of(info, replace(files, annotation=annotation), tmp_path)
    native = {
        (x, row) for zoom, row, first, last in view["picture"]["tiles"] for x in range(first, last + 1) if zoom == 3
    }
    assert native == {(0, 0), (1, 1), (2, 1), (4, 2), (4, 3)} | {(4, 1)}
    assert view["detail"]["lesions"] == 4


def test_the_map_is_described(info: SlideInfo, files: ViewedFiles, tmp_path: Path) -> None:
    view = view_of(info, files, tmp_path)
    probability = view["probability"]
    assert (probability["threshold"], probability["first_positive"]) == (0.5, 128)
    counts = np.bincount(lesion_map(info).ravel(), minlength=256)
    assert probability["counts"] == counts.tolist()
    assert sum(probability["counts"][128:]) * probability["pixel_mm2"] == pytest.approx(504 * 6.25e-6)
    assert view["background"] == "#f0f1f2"
    assert view["home"] == [0, 0, 3001, 2003]
    assert (view["slide"], view["size"], view["mpp"]) == ("s1", [3001, 2003], 0.25)
    assert view["provenance"] == PROVENANCE


@pytest.mark.parametrize(("threshold", "first_positive"), [(0.0001, 1), (0.3, 77), (0.5, 128), (0.99995, 255)])
def test_what_is_shown_as_lesion_begins_where_the_threshold_is_published(
    info: SlideInfo, files: ViewedFiles, tmp_path: Path, threshold: float, first_positive: int
) -> None:
    """0 is never lesion: it is also what lies beside the tissue."""
    probability_u8, metadata = lesion_map(info), {"unreadable": [], "threshold": threshold, "provenance": {}}
    write_outlines(Path(files.outlines), probability_u8 > 127, scores_of(probability_u8 / 255), 10, info, metadata)
    shown = view_of(info, files, tmp_path, "none")["probability"]
    assert (shown["threshold"], shown["first_positive"]) == (threshold, first_positive)


def test_outlines_are_in_pixels_of_the_file_the_largest_first(
    info: SlideInfo, tmp_path: Path, files: ViewedFiles
) -> None:
    shifted = SlideInfo.of(json.loads(json.dumps(vars(info))) | {"bounds_xy_lv0": [100, 60]})
    probability_u8 = lesion_map(info)
    metadata = {"unreadable": [], "threshold": 0.5, "provenance": {}}
    write_outlines(Path(files.outlines), probability_u8 > 127, scores_of(probability_u8 / 255), 10, shifted, metadata)
    predicted = view_of(shifted, files, tmp_path)["predicted"]
    assert predicted["n"] == 3
    assert [outline["name"] for outline in predicted["outlines"]] == ["Lesion 2", "Lesion 3", "Lesion 1"]
    ((ring,), *_) = (outline["rings"] for outline in predicted["outlines"])
    assert sorted(zip(ring[::2], ring[1::2], strict=True)) == [(1000, 600), (1000, 800), (1200, 600), (1200, 800)]


def test_holes_are_rings_of_their_own(info: SlideInfo, files: ViewedFiles, tmp_path: Path) -> None:
    around = mapping(box(100, 100, 400, 400).difference(box(200, 200.4, 300, 300.6)))
    feature = {"properties": {"class": "vessel", "name": "V", "area_mm2": 1.0}, "geometry": around}
    write_json(tmp_path / "a.geojson", {"features": [feature]})
    annotated = replace(files, annotation=str(tmp_path / "a.geojson"))
    ((edge, hole),) = (outline["rings"] for outline in view_of(info, annotated, tmp_path)["annotated"][0]["outlines"])
    assert set(zip(edge[::2], edge[1::2], strict=True)) == {(100, 100), (400, 100), (400, 400), (100, 400)}
    assert set(zip(hole[::2], hole[1::2], strict=True)) == {(200, 200), (300, 200), (300, 301), (200, 301)}
    assert (len(edge), len(hole)) == (8, 8)


def test_the_largest_outlines_of_a_class_are_drawn(
    info: SlideInfo, files: ViewedFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lesionmap.viewer.outlines.MOST_OUTLINES", 2)
    boxes = [("fat", f"Fat {n}", (0, 0, 100 + 10 * n, 100)) for n in range(4)]
    annotated = replace(files, annotation=annotate(tmp_path / "a.geojson", *boxes))
    view = view_of(info, annotated, tmp_path)
    (fat,) = view["annotated"]
    assert (fat["class"], fat["n"], fat["names"]) == ("fat", 4, ["Fat 0", "Fat 1", "Fat 2", "Fat 3"])
    assert [outline["name"] for outline in fat["outlines"]] == ["Fat 3", "Fat 2"]
    assert (view["predicted"]["n"], len(view["predicted"]["outlines"])) == (3, 2)


@pytest.mark.parametrize(("most", "drawn"), [(15, 3), (14, 2), (10, 2), (9, 1), (1, 1)])
def test_outlines_are_drawn_up_to_so_many_points(
    info: SlideInfo, files: ViewedFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, drawn: int
) -> None:
    monkeypatch.setattr("lesionmap.viewer.outlines.MOST_POINTS", most)
    predicted = view_of(info, files, tmp_path, "none")["predicted"]  # squares, of five points each
    assert (predicted["n"], len(predicted["outlines"])) == (3, drawn)


def test_texts_of_files_stay_texts(info: SlideInfo, files: ViewedFiles, tmp_path: Path) -> None:
    annotation = annotate(tmp_path / "a.geojson", ("lesion", HOSTILE, (0, 0, 9, 9)))
    view = view_of(info, replace(files, annotation=annotation), tmp_path)
    assert view["annotated"][0]["names"] == [HOSTILE]
    text = (tmp_path / "view/view.js").read_text(encoding="ascii")
    assert not set("<>&") & set(text)
    assert text.count("\n") == 1


def test_scripts_hold_no_text_that_ends_them() -> None:
    told = as_script({"a": ["</script>", "\u2028", "é&'", "\\"]})
    assert told == r"""JSON.parse('{"a":["\\u003c/script\\u003e","\\u2028","\\u00e9\\u0026\\u0027","\\\\"]}')"""
    with pytest.raises(ValueError, match="JSON compliant"):
        as_script(float("nan"))


def test_two_runs_give_equal_bytes(info: SlideInfo, files: ViewedFiles, tmp_path: Path) -> None:
    found = []
    for threads in (1, 2):
        paths = str(tmp_path / "view"), str(tmp_path / "overlay.png")
        cut_view(info, files, *paths, detail="all", provenance=PROVENANCE, threads=threads)
        found.append({name: (tmp_path / "view" / name).read_bytes() for name in written(tmp_path / "view")})
    assert found[0] == found[1]


def test_an_annotation_in_quarantine_is_left_out(info: SlideInfo, files: ViewedFiles, tmp_path: Path) -> None:
    path = str(tmp_path / "a.geojson")
    write_quarantined([path], AnnotationError(slide="s1", stage="import_annotation", finding="odd", remedy="look"))
    view = view_of(info, replace(files, annotation=path), tmp_path)
    assert view["annotated"] == []


def test_a_damaged_slide_is_shown_as_far_as_possible(info: SlideInfo, files: ViewedFiles, tmp_path: Path) -> None:
    copy = shutil.copy(info.path, tmp_path / "slide.tif")
    damage(copy, (1100, 700))
    damaged = SlideInfo.of(json.loads(json.dumps(vars(info))) | {"path": str(copy)})
    view = view_of(damaged, files, tmp_path)
    assert view["picture"]["damaged"] == 2  # of zooms 2 and 3; the coarser ones are read from the file's next level
    assert view["picture"]["tiles"] == view_of(info, files, tmp_path)["picture"]["tiles"]


def test_a_slide_that_cannot_be_opened_leaves_the_former_view(
    info: SlideInfo, files: ViewedFiles, tmp_path: Path
) -> None:
    before = view_of(info, files, tmp_path)
    gone = SlideInfo.of(json.loads(json.dumps(vars(info))) | {"path": str(tmp_path / "gone.tif")})
    with pytest.raises(SlideError, match="slide s1, cut_view: OpenSlide cannot open"):
        view_of(gone, files, tmp_path)
    assert read_view(tmp_path / "view") == before
    assert not (tmp_path / ".view.draft").exists()


def test_a_slide_of_glass_has_no_tiles(files: ViewedFiles, tmp_path: Path) -> None:
    info = info_of(write_tiff(tmp_path / "glass.tif", np.full((700, 1000, 3), GLASS, dtype=np.uint8)))
    for name in ("p.ome.tif", "lesions.tif"):
        write_map(tmp_path / name, np.zeros((70, 100), dtype=np.uint8), MapNotes("s1", "p", 2.5, {}), block_mean)
    write_json(tmp_path / "lesions.geojson", {"features": [], "threshold": 0.5})
    view = view_of(info, files, tmp_path)
    assert written(tmp_path / "view") == {"view.js"}
    assert (view["picture"]["tiles"], view["probability"]["tiles"], view["home"]) == ([], [], [0, 0, 1000, 700])
    assert read_json(tmp_path / "lesions.geojson")["features"] == view["predicted"]["outlines"]


def judged(files: ViewedFiles, annotation: str, verdicts: list[str], lesions: list[dict[str, Any]]) -> ViewedFiles:
    """The files with verdicts in the outlines, in the order of the file."""
    content = read_json(files.outlines)
    for feature, verdict in zip(content["features"], verdicts, strict=True):
        feature["properties"]["verdict"] = verdict
    write_json(files.outlines, content | {"annotated_lesions": lesions})
    return replace(files, annotation=annotation)


def lesion(number: int, found: bool | None, outlines: int = 1) -> dict[str, Any]:
    return {"lesion": number, "found": found, "outlines": outlines, "area_mm2": 0.1, "centroid_xy_lv0": [1.5, 2.5]}


def test_outlines_have_their_verdicts_and_lesions(info: SlideInfo, files: ViewedFiles, tmp_path: Path) -> None:
    """The first two annotated outlines are 25 µm apart."""
    boxes = [(1000, 600, 1100, 700), (1200, 600, 1280, 700), (2100, 1600, 2200, 1900)]
    annotation = annotate(tmp_path / "a.geojson", *(("lesion", "Tumor", corners) for corners in boxes))
    lesions = [lesion(1, True, 2), lesion(2, False)]
    view = view_of(info, judged(files, annotation, ["false", "merged", "false"], lesions), tmp_path, "none")
    assert view["annotated_lesions"] == lesions
    assert view["predicted"]["verdicts"] == {"false": 2, "merged": 1}
    outlines = {outline["name"]: outline["verdict"] for outline in view["predicted"]["outlines"]}
    assert outlines == {"Lesion 2": "merged", "Lesion 3": "false", "Lesion 1": "false"}
    assert view["predicted"]["false"] == [
        {"name": "Lesion 3", "area_mm2": 0.000625, "centre": [2350.0, 1550.0]},
        {"name": "Lesion 1", "area_mm2": 0.000025, "centre": [410.0, 310.0]},
    ]
    (annotated,) = view["annotated"]
    numbered = {
        tuple(outline["rings"][0][:2]): (outline["lesion"], outline["found"]) for outline in annotated["outlines"]
    }
    assert sorted(numbered.values()) == [(1, True), (1, True), (2, False)]
    assert [number for (_, y), number in numbered.items() if y > 1500] == [(2, False)]


def test_errors_are_shown_in_detail_first(
    info: SlideInfo, files: ViewedFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lesionmap.viewer.view.MARGIN_UM", 0)
    monkeypatch.setattr("lesionmap.viewer.negatives.SAMPLES", 0)
    monkeypatch.setattr("lesionmap.viewer.view.MOST_DETAIL_TILES", 2)
    annotation = annotate(tmp_path / "a.geojson", ("lesion", "Tumor", (2600, 1100, 2900, 1400)))
    wanted = judged(files, annotation, ["false", "matched", "not judged"], [lesion(1, False)])
    view = view_of(info, wanted, tmp_path)
    native = {
        (x, row) for zoom, row, first, last in view["picture"]["tiles"] for x in range(first, last + 1) if zoom == 3
    }
    assert native == {(5, 2), (0, 0)}  # a missed lesion and a false one, each smaller than Lesion 2 or not
    assert view["detail"] == {"mode": "lesions", "lesions": 4, "without": 2}


def test_a_verdict_is_in_no_view_of_a_slide_without_annotation(
    info: SlideInfo, files: ViewedFiles, tmp_path: Path
) -> None:
    view = view_of(info, files, tmp_path, "none")
    assert (view["annotated_lesions"], view["predicted"]["verdicts"], view["predicted"]["false"]) == ([], {}, [])
    assert all(set(outline) == {"name", "rings"} for outline in view["predicted"]["outlines"])


def test_the_stain_is_what_the_network_sees(info: SlideInfo, files: ViewedFiles, tmp_path: Path) -> None:
    stain = view_of(info, files, tmp_path, "none")["stain"]
    assert stain == {
        "basis": [[0.6, 0.8, 0.0], [0.0, 1.0, 0.0]],
        "target": [[0.75, 1.0, 0.0], [0.0, 0.5, 0.0]],
        "white_point": list(GLASS),
        "sparsity": 0.01,
    }


def test_negative_samples_are_shown_in_detail(info: SlideInfo, tmp_path: Path, files: ViewedFiles) -> None:
    """Tissue but for its right edge; the lesions are in the grid's first square of 2048 px."""
    codes = np.zeros((63, 94), dtype=np.uint8)
    codes[:, :] = 255
    write_mask(tmp_path / "tissue.tif", codes, mpp=8)
    view = view_of(info, files, tmp_path)
    assert view["negatives"] == []  # the slide has but one whole square
