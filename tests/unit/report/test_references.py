"""What is cited, as text and as BibTeX."""

from lesionmap.report.references import BOOTSTRAP, MACENKO, PATENT, STAINTOOLS, cited_sources


def test_bibtex_of_an_article():
    assert (
        BOOTSTRAP.bibtex
        == """@article{hesterberg2015,
  author = {Hesterberg, Tim C.},
  title = {{What teachers should know about the bootstrap: resampling in the undergraduate statistics curriculum}},
  journal = {The American Statistician},
  year = {2015},
  volume = {69},
  number = {4},
  pages = {371--386},
  doi = {10.1080/00031305.2015.1089789}
}"""
    )


def test_bibtex_of_other_kinds_has_what_there_is():
    assert "  booktitle = {IEEE International Symposium on Biomedical Imaging (ISBI)},\n" in MACENKO.bibtex
    assert "  pages = {1107--1110},\n" in MACENKO.bibtex
    assert "volume" not in MACENKO.bibtex
    assert "  author = {{Tianjin University}},\n" in PATENT.bibtex
    assert PATENT.bibtex.endswith("  howpublished = {Patent application CN 111784671 A},\n  year = {2020}\n}")
    assert "year" not in STAINTOOLS.bibtex


def test_braces_are_in_pairs_and_names_differ():
    sources = cited_sources({"method": "staintools", "fallback": "macenko"}, evaluated=True).values()
    assert len({source.key for source in sources}) == len(sources) == 9
    for source in sources:
        assert source.bibtex.count("{") == source.bibtex.count("}")


def test_the_place_in_a_list_of_references():
    assert BOOTSTRAP.place == " 69(4):371–386, 2015"
    assert MACENKO.place == ":1107–1110, 2009"
    assert PATENT.place == ", 2020"
    assert STAINTOOLS.place == ""


def test_what_a_run_did_not_use_is_not_cited():
    roles = list(cited_sources({"method": "macenko", "fallback": "macenko"}, evaluated=False))
    assert roles == ["patent", "stain", "fpn", "resnet", "focal"]
