"""What a run found, in a few lines: first slides with lesions, then those without."""

from collections.abc import Iterator, Mapping, Sequence

from lesionmap.formatting import counted

MAPPED = "mapped"  # the state of a slide
MOST_LISTED = 20
Row = Mapping[str, str]


def with_lesions(rows: Sequence[Row]) -> list[Row]:
    """Mapped slides with lesions, the largest area first."""
    found = [row for row in rows if row["state"] == MAPPED and row["lesions"] != "0"]
    return sorted(found, key=lambda row: float(row["lesion_mm2"]), reverse=True)


def without_lesions(rows: Sequence[Row]) -> list[Row]:
    """Mapped slides without lesions: those on which annotated ones were missed, then the others."""
    none = [row for row in rows if row["state"] == MAPPED and row["lesions"] == "0"]
    return sorted(none, key=lambda row: not missed_in_words(row))


def total_in_words(rows: Sequence[Row]) -> str:
    """How many slides are mapped, and how many lesions of what area are on how many of them."""
    some, none = with_lesions(rows), without_lesions(rows)
    lesions, mm2 = sum(int(row["lesions"]) for row in some), sum(float(row["lesion_mm2"]) for row in some)
    text = f"{counted(len(some) + len(none), 'slide')} mapped"
    if not some:
        return f"{text}: no lesion on any of them" if none else text
    largest = max(some, key=lambda row: float(row["largest_mm2"]))
    size = f"{float(largest['largest_mm2']):.3f} mm², on {largest['slide']}"
    found = f"{counted(lesions, 'lesion')} on {counted(len(some), 'slide')}, {mm2:.3f} mm² in all"
    return f"{text}: {found}, the largest {size}; {len(none)} without lesions"


def findings_lines(rows: Sequence[Row]) -> Iterator[str]:
    """Lines of the conclusion.

    Parameters
    ----------
    rows : sequence of mappings
        Rows of the slide table of :func:`lesionmap.evaluation.findings.list_findings`.
    """
    some, none = with_lesions(rows), without_lesions(rows)
    yield total_in_words(rows)
    for row in some[:MOST_LISTED]:
        yield f"  {row['slide']}: {slide_in_words(row)}"
    if len(some) > MOST_LISTED:
        yield f"  and {len(some) - MOST_LISTED} more with less (results/slides.tsv)"
    if none:
        more = f" and {len(none) - MOST_LISTED} more" if len(none) > MOST_LISTED else ""
        listed = ", ".join(row["slide"] + missed_in_words(row) for row in none[:MOST_LISTED])
        yield f"  without lesions: {listed}{more}"


def missed_in_words(row: Row) -> str:
    """What the annotation says of a slide without lesions, if it has any."""
    return "" if row["missed_lesions"] in ("NA", "0") else f" ({row['missed_lesions']} missed)"


def slide_in_words(row: Row) -> str:
    """Number and area of a slide's lesions, and what the annotation says of them."""
    mm2 = f"{float(row['lesion_mm2']):.3f} mm²"
    share = "" if row["tissue_percent"] == "NA" else f", {float(row['tissue_percent']):.2g} % of its tissue"
    text = f"{counted(int(row['lesions']), 'lesion')}, {mm2}{share}"
    verdicts = (
        [] if row["false_lesions"] == "NA" else [f"{row['false_lesions']} false", f"{row['missed_lesions']} missed"]
    )
    return text + (f" ({', '.join(verdicts)})" if verdicts else "")
