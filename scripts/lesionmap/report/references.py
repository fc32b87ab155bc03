"""What a methods section that describes a run has to cite."""

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
MOST_NAMED = 4  # authors; of more, the first stands for all


@dataclass(frozen=True)
class Reference:
    """A source, as an entry of ``references.bib`` and as a list of references has it.

    Parameters
    ----------
    bibtex : str
        The entry.
    """

    bibtex: str

    def field(self, *names: str) -> str:
        """The first of some fields that the entry has, without braces; else empty."""
        fields = dict(re.findall(r"^  (\w+) = \{(.*)\},?$", self.bibtex, re.MULTILINE))
        return next((fields[name].strip("{}") for name in names if name in fields), "")

    @property
    def authors(self) -> str:
        """Family names and initials, as in ``He K, Zhang X``; ``et al`` where there are more than four."""
        known = [author for author in self.field("author").split(" and ") if author != "others"]
        few = len(known) <= MOST_NAMED and " and others" not in self.bibtex
        return ", ".join(map(_with_initials, known)) if few else f"{_with_initials(known[0])}, et al"

    @property
    def title(self) -> str:
        """Of the paper, patent or program."""
        return self.field("title")

    @property
    def venue(self) -> str:
        """Journal, proceedings, or what else it appeared in or as."""
        return self.field("journal", "booktitle", "howpublished")

    @property
    def place(self) -> str:
        """What follows the venue: volume, pages and year."""
        volume, number, pages, year = map(self.field, ("volume", "number", "pages", "year"))
        issue = f" {volume}({number})" if volume else ""
        return issue + (f":{pages}".replace("--", "–") if pages else "") + (f", {year}" if year else "")

    @property
    def doi(self) -> str:
        """Empty where there is none."""
        return self.field("doi")


def _with_initials(author: str) -> str:
    """``Marron JS`` of ``Marron, J. S.``; a name without comma is an institution's."""
    family, _, given = author.partition(", ")
    initials = ("-".join(part[0] for part in name.split("-")) for name in given.split())
    return f"{family} {''.join(initials)}".strip()


def cited_sources(stain: Mapping[str, Any], *, evaluated: bool) -> dict[str, Reference]:
    """What a run rests on, by what it is cited for, in the order of the text.

    Parameters
    ----------
    stain : mapping
        The config's section.
    evaluated : bool
        Whether any map was held against an annotation.
    """
    keys = {"patent": "lesionmap_patent", "stain": STAIN_METHODS[stain["method"]]}
    if stain["method"] == "staintools":
        keys["staintools"] = "byfield"
    if stain["fallback"] == "macenko" and stain["method"] != "macenko":
        keys["macenko"] = "macenko2009"
    keys |= {"fpn": "lin2017fpn", "resnet": "he2016", "focal": "lin2017focal"}
    if evaluated:
        keys |= {"camelyon": "bejnordi2017", "bootstrap": "hesterberg2015"}
    return {role: references()[key] for role, key in keys.items()}


@cache
def references() -> dict[str, Reference]:
    """All that may be cited, by key, in the file's order."""
    entries = FILE.read_text(encoding="utf-8").strip().split("\n\n")
    return {entry[entry.index("{") + 1 : entry.index(",")]: Reference(entry) for entry in entries}
