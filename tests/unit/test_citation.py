"""CITATION.cff: what Citation File Format 1.2.0 asks for, and this version."""

import tomllib

import yaml
from lesionmap.version import VERSION


def test_the_citation_is_of_this_version(request):
    root = request.config.rootpath
    cited = yaml.load((root / "CITATION.cff").read_text(encoding="utf-8"), yaml.BaseLoader)
    assert {"cff-version", "title", "message", "authors", "date-released", "keywords"} <= set(cited)
    assert (cited["cff-version"], cited["type"], cited["license"]) == ("1.2.0", "software", "MIT")
    assert cited["version"] == VERSION
    assert cited["authors"] == [{"name": "The LesionMap developers"}]
    assert [source["number"] for source in cited["references"]] == ["CN 111784671 A"]


def test_the_package_has_this_version(request):
    project = tomllib.loads((request.config.rootpath / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == VERSION
