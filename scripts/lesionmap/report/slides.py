"""What the report shows about each slide."""

from dataclasses import dataclass
from typing import Any

import yaml
from shapely.geometry import shape

from lesionmap.evaluation.findings import OF_ANNOTATION, UNLIKE
from lesionmap.evaluation.leakage import LEAKED, group_of
from lesionmap.evaluation.summary import read_slide_table
from lesionmap.files.records import read_json, read_table
from lesionmap.jobs.quarantine import quarantined, usable
from lesionmap.report.inputs import ReportInputs

MOST_LESIONS_LISTED = 100


@dataclass(frozen=True)
class Lesion:
    """One lesion of a slide; its centroid is in level-0 pixels of the slide file.

    `verdict` is that of :class:`lesionmap.metrics.verdicts.Verdicts`; empty without annotation.
    """

    name: str
    area_mm2: float
    mean_probability: float
    max_probability: float
    centroid_xy_lv0: tuple[float, float]
    verdict: str


@dataclass(frozen=True)
class SlideReport:
    """What the report shows about one slide.

    Parameters
    ----------
    info, resolution, stain : dict
        Its :class:`lesionmap.slides.slide.SlideInfo`, :class:`lesionmap.slides.inspection.Resolution` and the file of
        :func:`lesionmap.stain.match.match_slide`, as read from JSON.
    annotation_format : str
        Format of its annotation file; empty without annotation.
    tissue_share : dict
        Share of each annotated class's area that lies on tissue; empty without annotation.
    review : dict or None
        Counts of what a person has corrected (:func:`lesionmap.annotations.corrections.correction_counts`); None if its
        annotation does not come from a review.
    found : dict
        Its row of the table of :func:`lesionmap.evaluation.findings.list_findings`.
    metrics : dict or None
        Its row of the table of :func:`lesionmap.evaluation.summary.summarise`; None if the slide was not evaluated.
    lesions : list of Lesion
        The largest lesions, largest first; `n_lesions` and `lesion_area_mm2` include all.
    annotated : list of dict
        Its annotated lesions of :func:`lesionmap.lesions.judging.judge_lesions`, largest first.
    threshold : float
        Probability from which a pixel counts as lesion.
    refusals, notes : list of str
        Which stages refused it and why, and other flags.
    failed_exports : list of str
        Rules whose exports or pictures of it could not be made; the notes say why.
    provenance : str
        Where its lesion map comes from, as YAML.
    viewable : bool
        Whether it has a deep-zoom view and an overlay.
    stain_drawn : bool
        Whether it has pictures of its stain.
    """

    slide: str
    split: str
    info: dict[str, Any]
    resolution: dict[str, Any]
    refusals: list[str]
    notes: list[str]
    failed_exports: list[str]
    stain: dict[str, Any]
    annotation_format: str
    tissue_share: dict[str, float]
    found: dict[str, str]
    review: dict[str, int] | None
    metrics: dict[str, Any] | None
    lesions: list[Lesion]
    annotated: list[dict[str, Any]]
    n_lesions: int
    lesion_area_mm2: float
    threshold: float
    provenance: str
    viewable: bool
    stain_drawn: bool

    @property
    def size_mm(self) -> tuple[float, float]:
        """Width and height of the scan, mm."""
        width, height = self.info["size_lv0"]
        return width * self.info["mpp"] / 1000, height * self.info["mpp"] / 1000

    @property
    def leakage(self) -> str:
        """How it depends on the model, in words; empty if it does not, or was not evaluated."""
        return str(self.metrics["leakage"]) if self.metrics else ""

    @property
    def leaked(self) -> bool:
        """Whether the metrics of its split are without it, since the model has seen it or its patient."""
        return group_of(self.split, self.leakage) == LEAKED

    @property
    def misplaced(self) -> bool:
        """Whether its annotation seems to be in another frame, so that its metrics mean nothing."""
        return any(note.startswith(OF_ANNOTATION) for note in self.notes)

    @property
    def judged(self) -> bool:
        """Whether its lesions have verdicts."""
        return any(lesion.verdict for lesion in self.lesions)

    @property
    def flags(self) -> list[str]:
        """All that is to be looked at."""
        return [*self.refusals, *self.notes]

    @property
    def stain_flags(self) -> list[str]:
        """All flags of its stain; a fit whose verdict is not ``ok`` always has one."""
        return [*self.stain["flags"], *(note for note in self.notes if note.startswith(UNLIKE))]

    @property
    def stain_sort_key(self) -> tuple[bool, float]:
        """Sort key, larger is odder: whether two stains were not found, then the larger angle to the reference."""
        return self.stain["fitted"]["verdict"] != "ok", max(self.stain["angle_to_reference"])


@dataclass(frozen=True)
class CohortTables:
    """Content of the cohort's tables by slide id: findings, metrics, refusals, failed exports, annotation."""

    found: dict[str, dict[str, str]]
    metrics: dict[str, dict[str, Any]]
    refusals: dict[str, list[dict[str, str]]]
    failed_exports: dict[str, list[dict[str, str]]]
    checks: dict[str, dict[str, Any]]


def load_slides(inputs: ReportInputs) -> list[SlideReport]:
    """All slides that have a lesion map, in the sheet's order."""
    tables = CohortTables(
        found={row["slide"]: row for row in read_table(inputs.found)},
        metrics={row["slide"]: row for row in read_slide_table(inputs.slide_table)},
        refusals=_by_slide(inputs.quarantine),
        failed_exports=_by_slide(inputs.failed_exports),
        checks={check["slide"]: check for check in map(read_json, usable(inputs.checks))},
    )
    pictures = zip(inputs.views, inputs.stain_pictures, strict=True)
    paths = zip(inputs.records, inputs.stains, inputs.outlines, pictures, strict=True)
    return [_load_slide(*files, tables) for files in paths]


def _by_slide(table: str) -> dict[str, list[dict[str, str]]]:
    """The rows of a table, by slide."""
    found: dict[str, list[dict[str, str]]] = {}
    for row in read_table(table):
        found.setdefault(row["slide"], []).append(row)
    return found


def _load_slide(record: str, stain: str, outlines: str, pictures: tuple[str, str], tables: CohortTables) -> SlideReport:
    slide, match, lesions = read_json(record), read_json(stain), read_json(outlines)
    name = slide["slide"]
    corner = slide["info"]["bounds_xy_lv0"]
    viewable, stain_drawn = (not quarantined(path) for path in pictures)
    failed = tables.failed_exports.get(name, [])
    check = tables.checks.get(name, {"format": "", "tissue_share": {}, "review": None})
    metrics = tables.metrics.get(name)
    leakage = metrics["leakage"] if metrics and group_of(slide["split"], metrics["leakage"]) == LEAKED else ""
    largest = sorted(lesions["features"], key=_area_mm2, reverse=True)[:MOST_LESIONS_LISTED]
    return SlideReport(
        slide=name,
        split=slide["split"],
        info=slide["info"],
        stain=match,
        annotation_format=check["format"],
        tissue_share=check["tissue_share"],
        review=check["review"],
        resolution=slide["resolution"],
        refusals=[f"in quarantine since {row['stage']}: {row['finding']}" for row in tables.refusals.get(name, [])],
        failed_exports=[row["stage"] for row in failed],
        notes=[
            *([f"not independent of the model: {leakage}"] if leakage else []),
            *filter(None, tables.found[name]["flags"].split("; ")),
        ],
        found=tables.found[name],
        metrics=metrics,
        lesions=[_lesion(feature, corner) for feature in largest],
        annotated=sorted(lesions.get("annotated_lesions", []), key=lambda lesion: lesion["area_mm2"], reverse=True),
        n_lesions=len(lesions["features"]),
        lesion_area_mm2=sum(map(_area_mm2, lesions["features"])),
        threshold=lesions["threshold"],
        provenance=as_yaml(lesions["provenance"]),
        viewable=viewable,
        stain_drawn=stain_drawn,
    )


def _area_mm2(feature: dict[str, Any]) -> float:
    return float(feature["properties"]["measurements"]["Area mm^2"])


def _lesion(feature: dict[str, Any], corner: tuple[int, int]) -> Lesion:
    measurements = feature["properties"]["measurements"]
    centroid = shape(feature["geometry"]).centroid  # relative to the bounds' corner, as QuPath expects it
    return Lesion(
        name=feature["properties"]["name"],
        area_mm2=_area_mm2(feature),
        mean_probability=measurements["Mean probability"],
        max_probability=measurements["Max probability"],
        centroid_xy_lv0=(centroid.x + corner[0], centroid.y + corner[1]),
        verdict=feature["properties"].get("verdict", ""),
    )


def as_yaml(content: Any) -> str:
    """Settings or provenance as YAML, as the pages show them."""
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
