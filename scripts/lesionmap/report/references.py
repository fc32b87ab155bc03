"""The sources that a methods section about a run has to cite."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_suffix(".bib")
STAIN_METHODS = {
    "vahadane": "vahadane2016",
    "staintools": "vahadane2016",
    "macenko": "macenko2009",
    "none": "ruifrok2001",
}
MOST_NAMED = 4  # authors; if there are more, only the first is named


@dataclass(frozen=True)
class Reference:
    """A source: its entry in ``references.bib``, and its parts for a list of references.

    Parameters
    ----------
    bibtex : str
        The whole entry.
    """

    bibtex: str

    def field(self, *names: str) -> str:
        """The first of the named fields that the entry has, without braces; empty if it has none."""
        fields = dict(re.findall(r"^  (\w+) = \{(.*)\},?$", self.bibtex, re.MULTILINE))
        return next((fields[name].strip("{}") for name in names if name in fields), "")

    @property
    def authors(self) -> str:
        """Family names and initials, as in ``He K, Zhang X``; ``et al`` if there are more than four."""
        known = [author for author in self.field("author").split(" and ") if author != "others"]
        few = len(known) <= MOST_NAMED and " and others" not in self.bibtex
        return ", ".join(map(_with_initials, known)) if few else f"{_with_initials(known[0])}, et al"

    @property
    def title(self) -> str:
        """Title of the paper, patent or program."""
        return self.field("title")

    @property
    def venue(self) -> str:
        """Journal, proceedings, or another form of publication."""
        return self.field("journal", "booktitle", "howpublished")

    @property
    def place(self) -> str:
        """What follows the venue: volume, pages and year."""
        volume, number, pages, year = map(self.field, ("volume", "number", "pages", "year"))
        issue = f" {volume}({number})" if volume else ""
        return issue + (f":{pages}".replace("--", "–") if pages else "") + (f", {year}" if year else "")

    @property
    def doi(self) -> str:
        """Digital object identifier; empty if there is none."""
        return self.field("doi")


def _with_initials(author: str) -> str:
    """``Marron JS`` of ``Marron, J. S.``; a name without comma is that of an institution."""
    family, _, given = author.partition(", ")
    initials = ("-".join(part[0] for part in name.split("-")) for name in given.split())
    return f"{family} {''.join(initials)}".strip()


def cited_sources(stain: Mapping[str, Any], *, mapped: bool, evaluated: bool) -> dict[str, Reference]:
    """The sources of a run's methods, by what each is cited for, in the order of the text.

    Parameters
    ----------
    stain : mapping
        The config section ``stain``.
    mapped : bool
        Whether any slide has a map; if not, the text is about nothing that other sources describe.
    evaluated : bool
        Whether any map was compared with an annotation.
    """
    keys = {"patent": "lesionmap_patent"}
    if not mapped:
        return {role: references()[key] for role, key in keys.items()}
    keys["stain"] = STAIN_METHODS[stain["method"]]
    if stain["method"] == "staintools":
        keys["staintools"] = "byfield"
    if stain["fallback"] == "macenko" and stain["method"] != "macenko":
        keys["macenko"] = "macenko2009"
    keys |= {"fpn": "lin2017fpn", "resnet": "he2016", "focal": "lin2017focal"}
    if evaluated:
        keys |= {"camelyon": "bejnordi2017", "jackknife": "efron1981"}
    return {role: references()[key] for role, key in keys.items()}


@cache
def references() -> dict[str, Reference]:
    """All sources that may be cited, by BibTeX key, in the file's order."""
    entries = FILE.read_text(encoding="utf-8").strip().split("\n\n")
    return {entry[entry.index("{") + 1 : entry.index(",")]: Reference(entry) for entry in entries}
