import re
from importlib.resources import files
from pathlib import Path

import numpy as np
from lesionmap.annotations.classes import OUTLINED
from lesionmap.viewer.assets import LEAFLET, SCRIPTS, TEMPLATES, colour_stops, colour_tables, write_viewer
from matplotlib import colormaps


def test_the_viewer_is_leaflet_and_our_glue(tmp_path: Path) -> None:
    write_viewer(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*LEAFLET, "viewer.js", "viewer.css"}
    leaflet = files("xstatic.pkg.leaflet").joinpath("data/leaflet.js").read_bytes()
    assert (tmp_path / "leaflet.js").read_bytes() == leaflet
    assert b"Vladimir Agafonkin" in leaflet[:200]  # its notice, which its licence wants kept
    ours = (tmp_path / "viewer.js").read_text(encoding="utf-8")
    assert ours.count('"use strict";') == len(SCRIPTS) == len(list(TEMPLATES.glob("*.js")))
    assert ours.endswith((TEMPLATES / "viewer.js").read_text(encoding="utf-8"))


def test_outlines_of_every_class_have_a_style_of_their_own() -> None:
    source = (TEMPLATES / "viewer_outlines.js").read_text(encoding="utf-8")
    styles = dict(re.findall(r"^    (\w+): (\{ color: .*\}),$", source, flags=re.MULTILINE))
    assert set(styles) == {"predicted", "true", "false", "unjudged", "found", "missed", *OUTLINED}
    together = [style for name, style in styles.items() if name != "predicted"]  # which a slide with verdicts has not
    dashes = [*re.findall(r'dashArray: "(.*?)"', " ".join(together)), "solid"]
    assert len(set(dashes)) == len(together)


def test_our_glue_sets_texts_as_texts_alone() -> None:
    source = "".join((TEMPLATES / name).read_text(encoding="utf-8") for name in SCRIPTS)
    assert not [
        name for name in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(") if name in source
    ]
    assert "http" not in source.replace("http://www.w3.org/2000/svg", "")


def test_every_level_has_the_colour_of_the_map() -> None:
    tables = colour_tables()
    assert list(tables) == ["R", "G", "B"]
    colours = np.array([[float(part) for part in table.split()] for table in tables.values()]).T  # (256, 3)
    expected = np.rint(colormaps["viridis"](np.arange(256))[:, :3] * 255)
    np.testing.assert_array_equal(np.rint(colours * 255), expected)
    np.testing.assert_array_equal(np.floor(colours * 255), expected)


def test_stops_run_from_the_least_to_the_highest_probability() -> None:
    stops = colour_stops().split(", ")
    assert (len(stops), stops[0], stops[-1]) == (9, "rgb(68 1 84)", "rgb(253 231 37)")
