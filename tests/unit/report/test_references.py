"""What is cited, as text and as BibTeX."""

from pathlib import Path

import pytest
from lesionmap.report.references import FILE, cited_sources, references

JACKKNIFE, MACENKO, PATENT, STAINTOOLS = (
    references()[key] for key in ("efron1981", "macenko2009", "lesionmap_patent", "byfield")
)


def test_the_file_is_bibtex_that_others_can_use():
    """Braces in pairs, one entry after the other, and every field that its kind must have."""
    text = Path(FILE).read_text(encoding="utf-8")
    assert "\n\n".join(entry.bibtex for entry in references().values()) + "\n" == text
    for entry in references().values():
        assert entry.bibtex.count("{") == entry.bibtex.count("}")
        assert entry.authors
        assert entry.title
        assert entry.venue
        assert entry.field("year") or entry.bibtex.startswith("@misc")


@pytest.mark.parametrize(
    ("key", "authors"),
    [
        ("efron1981", "Efron B, Stein C"),
        ("ruifrok2001", "Ruifrok AC, Johnston DA"),
        ("he2016", "He K, Zhang X, Ren S, Sun J"),
        ("lin2017focal", "Lin T-Y, et al"),  # of five
        ("bejnordi2017", "Ehteshami Bejnordi B, et al"),
        ("lesionmap_patent", "Tianjin University"),
    ],
)
def test_authors_have_initials_and_the_first_of_many_stands_for_all(key, authors):
    assert references()[key].authors == authors


def test_the_place_in_a_list_of_references():
    assert JACKKNIFE.place == " 9(3):586–596, 1981"
    assert MACENKO.place == ":1107–1110, 2009"
    assert PATENT.place == ", 2020"
    assert STAINTOOLS.place == ""
    assert (MACENKO.venue, PATENT.doi) == ("IEEE International Symposium on Biomedical Imaging (ISBI)", "")


def test_what_a_run_did_not_use_is_not_cited():
    roles = list(cited_sources({"method": "macenko", "fallback": "macenko"}, mapped=True, evaluated=False))
    assert roles == ["patent", "stain", "fpn", "resnet", "focal"]
    used = cited_sources({"method": "staintools", "fallback": "macenko"}, mapped=True, evaluated=True).values()
    assert list(cited_sources({"method": "macenko", "fallback": "macenko"}, mapped=False, evaluated=False)) == [
        "patent"
    ]
    assert len({entry.bibtex for entry in used}) == len(used) == 9
