"""The pre-flight check: problems of a slide sheet and costs of a run, before anything is computed."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from lesionmap.annotations.canonical import canonical, second_content
from lesionmap.annotations.formats import read_annotation
from lesionmap.annotations.masks import Annotation
from lesionmap.annotations.placement import REMEDY, Ground, placement
from lesionmap.errors import AnnotationError, LesionMapError, ModelError
from lesionmap.evaluation.leakage import LEAKED, UNSEEN, Seen, group_of
from lesionmap.evaluation.leakage import REMEDY as OF_REFUSAL
from lesionmap.files.model_metadata import load_metadata
from lesionmap.files.records import write_json, write_table
from lesionmap.formatting import counted
from lesionmap.jobs.parallel import map_in_order
from lesionmap.network.resources import machine_costs
from lesionmap.run.costs import (
    Costs,
    Overview,
    Work,
    backbone_to_fetch,
    costs_of,
    job_counts,
    overview_of,
    predict_work,
)
from lesionmap.run.settings import RunSettings
from lesionmap.servers.urls import is_remote, why_unavailable
from lesionmap.slides.identity import content_digest, sampled_digest
from lesionmap.slides.inspection import check_annotation, digest_of, examine
from lesionmap.slides.sampling import BOX_PX, check_illumination, sample_level
from lesionmap.slides.sheet import SlideRow
from lesionmap.slides.slide import Slide, SlideInfo

TRAINING_SPLITS = ("train", "val")
LABELLED_SPLITS = ("train", "val", "test")
OF_MARKS = "judge by other slides; the metrics of these are marked and left out of the headline"
MOST_ROWS_PRINTED = 100
MOST_NAMED = 5
COLUMNS = ["slide", "split", "verdict", "width", "height", "mpp", "regions", "tiles", "inference_tiles", "tissue_basis"]
COLUMNS += ["store_gb", "cpu_hours", "on_tissue", "ignored_mm2", "findings", "remedies"]


@dataclass
class Diagnosis:
    """What is known about one slide of the sheet.

    Parameters
    ----------
    info : SlideInfo or None
        None if the slide cannot be used, or is unseen.
    unseen : bool
        Whether it exists on a server, but has not been fetched.
    digest : str or None
        Equal for slides of equal content.
    lesions : int or None
        Number of lesion polygons in its annotation; None without a readable annotation.
    ignored_mm2 : float or None
        Area that its annotation says to ignore; None without a readable annotation.
    on_tissue : str
        How much of each annotated class lies on tissue; empty if that is unknown.
    work : Work or None
        The work that a run does on it.
    errors, warnings : list of (finding, remedy)
        Errors make the check fail; warnings do not.
    """

    row: SlideRow
    info: SlideInfo | None = None
    unseen: bool = False
    digest: str | None = None
    lesions: int | None = None
    ignored_mm2: float | None = None
    on_tissue: str = ""
    work: Work | None = None
    errors: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[tuple[str, str]] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """``error``, ``unseen``, ``warning`` or ``ok``."""
        return "error" if self.errors else "unseen" if self.unseen else "warning" if self.warnings else "ok"


def examine_sheet(
    rows: Sequence[SlideRow],
    settings: RunSettings,
    table: str,
    report: str,
    machine: str,
    *,
    threads: int,
    model_notes: Sequence[str] = (),
) -> None:
    """Check the slides of a sheet and estimate the costs of a run; print both, and write them to files.

    Parameters
    ----------
    table, report : str
        TSV with one row per slide; JSON with the same rows, the problems of the whole sheet, and the costs.
    machine : str
        JSON that keeps what was measured on this machine, see :func:`lesionmap.network.resources.machine_costs`.
    threads : int
        Number of slides that are checked at the same time.
    model_notes : sequence of str
        What the model of ``model.path`` has set in the config, and how maps differ from training.

    Raises
    ------
    LesionMapError
        If there is an error; everything is written and printed first.
    """
    states = _asked_of_servers(rows, settings.roots)
    found = list(map_in_order(partial(diagnose, settings=settings, states=states), rows, threads))
    _compare_content(found)
    _compare_patients(found)
    seen = _seen_by_model(settings)
    _compare_with_model(found, seen, settings, threads)
    _check_reference(found, settings)
    sheet_errors, notes = list(_sheet_errors(found, settings)), [*model_notes, *_notes(settings), *seen.notes]
    second_readers = sum(row.second_reader for row in rows)
    jobs = job_counts([row.split for row in rows], _readable(found), settings, second_readers)
    measured = machine_costs(settings.model, settings.tiles.tile_px, machine)
    costs = costs_of([(one.row.split, one.work) for one in found if one.work], settings, measured, jobs)
    _write(found, {"sheet_errors": _as_problems(sheet_errors), "notes": notes, "jobs": jobs}, costs, table, report)
    print("\n".join([*_printed(found, sheet_errors, costs, jobs), *(f"note: {note}" for note in notes)]))
    n_errors = len(sheet_errors) + sum(bool(one.errors) for one in found)
    if n_errors:
        raise LesionMapError(
            stage="doctor",
            finding=f"{counted(n_errors, 'error')} (listed above and in {table})",
            remedy="fix them; a run would leave those slides in quarantine, or stop",
        )


def _asked_of_servers(rows: Sequence[SlideRow], roots: Sequence[str] | None) -> Mapping[str, str]:
    """What servers report about the slides that they hold, by address."""
    addresses = [row.path for row in rows if is_remote(row.path)]
    if not addresses:
        return {}
    from lesionmap.servers import remote  # most sheets do not need its libraries

    return remote.states(addresses, roots)


def diagnose(row: SlideRow, settings: RunSettings, states: Mapping[str, str]) -> Diagnosis:
    """Check one slide without reading much of it; `states` holds what servers report about their slides."""
    found = Diagnosis(row)
    try:
        if is_remote(row.path):
            _diagnose_unseen(row, states[row.path], found)
            return found
        examined = examine(row, settings.inspection)
        found.info, found.digest = examined["info"], digest_of(row, sampled_digest)
        found.warnings += [(flag, "see that this is meant") for flag in examined["flags"]]
        content = _read_annotation(row, examined["info"], settings, found) if row.annotation else None
        _check_second(row, examined["info"], settings, found)
        _check_light(examined["info"])
        overview = overview_of(examined["info"], settings)
        if content and overview.seen:
            _check_placement(content, examined["info"], overview, found)
        trained = row.split in TRAINING_SPLITS and settings.trains
        found.work = predict_work(examined["info"], settings, overview, Annotation(content), trained=trained)
        if lost := found.work.lost_share:
            problems = found.errors if lost > settings.inspection.max_unreadable_fraction else found.warnings
            problems.append((f"{lost:.1%} of an overview cannot be read", "copy the file again; it is damaged"))
    except LesionMapError as error:
        found.errors.append((error.finding, error.remedy))
    return found


def _diagnose_unseen(row: SlideRow, state: str, found: Diagnosis) -> None:
    """Check a slide on a server before it is fetched; the costs do not include it."""
    check_annotation(row)
    if why := why_unavailable(state):
        found.errors.append(why)
    else:
        found.unseen = True
        unknown = "it is there, but nothing more is known of it before a run fetches it, nor what it will cost"
        found.warnings.append((unknown, "copy a similar slide to a local folder to learn that"))


def _check_light(info: SlideInfo) -> None:
    """Refuse fluorescence and dark-field images, by a level that is quickly read."""
    level = max(i for i, size in enumerate(info.level_sizes) if i == 0 or max(size) >= BOX_PX)
    with Slide(info, "doctor") as slide:
        tones = sample_level(slide, level, read_share=0.0).tones
    check_illumination(tones, info.slide, "doctor")


def _read_annotation(row: SlideRow, info: SlideInfo, settings: RunSettings, found: Diagnosis) -> dict[str, Any]:
    outlines = read_annotation(row.annotation, info, row.mask_mpp)
    if any(outline.origin for outline in outlines.outlines):  # their ids depend on the content of the whole slide
        info = replace(info, identity=digest_of(row, content_digest) or "")
        outlines = read_annotation(row.annotation, info, row.mask_mpp)
    content = canonical(outlines, info, settings.annotations)
    found.lesions = int(content["classes"]["lesion"]["polygons"])
    found.ignored_mm2 = content["classes"]["ignore"]["area_mm2"]
    if content["features"] and all(part["properties"]["class"] == "ignore" for part in content["features"]):
        unjudged = f"all outlines of its annotation, {found.ignored_mm2} mm², are of the class ignore"
        remedy = "see that the rest of the slide is meant to be without lesion, and that its classes are mapped"
        found.warnings.append((unjudged, remedy))
    elif not found.lesions and row.split in TRAINING_SPLITS:
        found.warnings.append(
            ("its annotation has no lesion", "see that this is meant, and that its classes are mapped")
        )
    for what in ("repaired", "ignored"):
        if content[what]:
            listed = ", ".join(f"{number} {kind}" for kind, number in content[what].items())
            found.warnings.append((f"outlines {what}: {listed}", "look at them in the program that made them"))
    if content["outside"]["polygons"]:
        lost = (
            f"{content['outside']['polygons']} outlines reach beyond the slide by {content['outside']['area_mm2']} mm²"
        )
        found.warnings.append((lost, "check that the annotation belongs to this slide and is in level-0 pixels"))
    return content


def _check_second(row: SlideRow, info: SlideInfo, settings: RunSettings, found: Diagnosis) -> None:
    """Warn of a second reader's annotation that cannot be used; a run compares the slide with the first alone."""
    try:
        if row.second_reader:
            second_content(row.annotation_2, info, settings.annotations, row.mask_mpp)
    except AnnotationError as error:
        found.warnings.append((error.finding, error.remedy))


def _check_placement(content: dict[str, Any], info: SlideInfo, overview: Overview, found: Diagnosis) -> None:
    """State how much of each class lies on the tissue of an overview; warn if too little does."""
    height, width = overview.codes.shape
    ground = Ground.of(overview.codes, (info.size_lv0[0] / width, info.size_lv0[1] / height))
    placed = placement(content, info, ground)
    found.on_tissue = ", ".join(f"{label} {share:.0%}" for label, share in placed["tissue_share"].items())
    found.warnings += [(flag, REMEDY) for flag in placed["flags"]]


def _compare_content(found: Sequence[Diagnosis]) -> None:
    """Find slides of equal content: an error across splits, as metrics would be too good; else a warning."""
    for alike in _grouped(found, [one.digest for one in found]):
        for same in _grouped(alike, [digest_of(one.row, content_digest) for one in alike]):  # hash these few in full
            leak = len({one.row.split for one in same} & set(LABELLED_SPLITS)) > 1
            for one in same:
                named = islice((other.row for other in same if other is not one), MOST_NAMED)
                others = ", ".join(f"{row.slide} ({row.split})" for row in named)
                n_more = len(same) - 1 - MOST_NAMED
                finding = f"the same slide as {others}{f' and {n_more} more' if n_more > 0 else ''}"
                (one.errors if leak else one.warnings).append((finding, "keep one of them"))


def _grouped(found: Sequence[Diagnosis], keys: Sequence[str | None]) -> list[list[Diagnosis]]:
    """Groups of slides that share a key; slides with the key None are left out."""
    groups = defaultdict(list)
    for one, key in zip(found, keys, strict=True):
        if key:
            groups[key].append(one)
    return [group for group in groups.values() if len(group) > 1]


def _compare_patients(found: Sequence[Diagnosis]) -> None:
    judged = [one for one in found if one.row.split in LABELLED_SPLITS]
    for theirs in _grouped(judged, [one.row.patient for one in judged]):
        splits = sorted({one.row.split for one in theirs}, key=LABELLED_SPLITS.index)
        for one in theirs if len(splits) > 1 else []:
            finding = f"patient {one.row.patient} is in the splits {' and '.join(splits)}"
            one.errors.append((finding, "give all slides of a patient one split; else the metrics are too good"))


def _seen_by_model(settings: RunSettings) -> Seen:
    """What the model of ``model.path`` has seen; nothing if there is none, or if it cannot be used."""
    try:
        return Seen.of(load_metadata(settings.model_path)) if settings.model_path else UNSEEN
    except ModelError:  # it is an error of the sheet
        return UNSEEN


def _compare_with_model(found: Sequence[Diagnosis], seen: Seen, settings: RunSettings, threads: int) -> None:
    """Find slides to be evaluated that the model of ``model.path`` has seen; its file has digests of whole slides."""
    judged = [one for one in found if one.row.split in ("val", "test")] if seen.training or seen.validation else []
    for one, identity in zip(judged, map_in_order(_identity, judged, threads), strict=True):
        leakage = seen.leakage(identity, one.row.patient)
        if group_of(one.row.split, leakage) == LEAKED:
            problems, remedy = (one.errors, OF_REFUSAL) if settings.refuses_leakage else (one.warnings, OF_MARKS)
            problems.append((f"not independent of the model: {leakage}", remedy))


def _identity(one: Diagnosis) -> str | None:
    return digest_of(one.row, content_digest) if one.digest else None


def _check_reference(found: Sequence[Diagnosis], settings: RunSettings) -> None:
    for one in found if settings.trains else []:
        if one.row.slide == settings.stain_reference and one.row.split == "test":
            finding = "the stain reference is in the test split"
            one.errors.append((finding, "choose a training slide as stain.reference"))


def _sheet_errors(found: Sequence[Diagnosis], settings: RunSettings) -> Iterator[tuple[str, str]]:
    model, weights = settings.model_path, settings.weights
    needed = model or (weights if weights not in ("imagenet", "none") else None)
    if needed and not Path(needed).is_file():
        yield f"the model file {needed} does not exist", "correct model.path or model.weights"
    elif model:
        yield from _model_errors(model)
    if model is not None:
        return
    training = [one for one in found if one.row.split == "train" and (one.info or one.unseen)]
    if not training:
        yield "no usable slide has the split train", "add training slides, or set model.path to an existing model"
    elif not any(one.lesions or one.unseen for one in training):
        yield "no training slide has a lesion", "check annotations.classes, and that annotations belong to their slides"
    reference = settings.stain_reference
    if any(one.row.slide == reference and not (one.info or one.unseen) for one in found):
        yield f"the stain reference {reference} cannot be used", "choose another slide as stain.reference"


def _model_errors(model: str) -> Iterator[tuple[str, str]]:
    """What keeps a model from being used, down to its weights."""
    from lesionmap.network.model_file import load_model  # torch takes seconds to load

    try:
        load_model(model)
    except ModelError as error:
        yield error.finding, error.remedy


def _notes(settings: RunSettings) -> Iterator[str]:
    """What a run will need from elsewhere."""
    if weights := backbone_to_fetch(settings):
        yield (
            f"the ImageNet weights {weights} are absent: a run downloads them, on the machine that runs Snakemake, "
            "before it trains. If that has no internet, place the file there first (the checkout's resources/README.md "
            "says from where)"
        )


def _readable(found: Sequence[Diagnosis]) -> list[tuple[str, str | None]]:
    """Split and vendor of the slides that a run will find readable; the vendor of unseen slides is unknown."""
    return [(one.row.split, one.info.vendor if one.info else None) for one in found if one.info or one.unseen]


def _as_problems(errors: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"finding": finding, "remedy": remedy} for finding, remedy in errors]


def _write(found: Sequence[Diagnosis], of_sheet: Mapping[str, Any], costs: Costs, table: str, report: str) -> None:
    rows = [_row(one) for one in found]
    write_table(table, rows, COLUMNS)
    write_json(report, {"slides": rows, **of_sheet, "costs": asdict(costs)})


def _row(one: Diagnosis) -> dict[str, Any]:
    problems = [*one.errors, *one.warnings]
    size = one.info.size_lv0 if one.info else (None, None)
    size_and_mpp = {"width": size[0], "height": size[1], "mpp": one.info.mpp if one.info else None}
    work = asdict(one.work) if one.work else {}
    of_annotation = {"on_tissue": one.on_tissue, "ignored_mm2": one.ignored_mm2}
    found = {"findings": "; ".join(dict(problems)), "remedies": "; ".join(dict.fromkeys(dict(problems).values()))}
    row = {"slide": one.row.slide, "split": one.row.split, "verdict": one.verdict}
    return row | size_and_mpp | work | of_annotation | found


def _printed(
    found: Sequence[Diagnosis], sheet_errors: Sequence[tuple[str, str]], costs: Costs, jobs: Mapping[str, int]
) -> Iterator[str]:
    shown = found if len(found) <= MOST_ROWS_PRINTED else [one for one in found if one.verdict in ("error", "warning")]
    width = max([5, *(len(one.row.slide) for one in shown)])
    yield f"{'slide':{width}}  split      verdict  regions   tiles  findings"
    for one in shown:
        regions, tiles = (one.work.regions, one.work.tiles) if one.work else ("", "")
        text = "; ".join(f"{finding}. Remedy: {remedy}" for finding, remedy in [*one.errors, *one.warnings])
        yield f"{one.row.slide:{width}}  {one.row.split:9}  {one.verdict:7}  {regions:>7}  {tiles:>6}  {text}".rstrip()
    if len(shown) < len(found):
        yield f"… and {len(found) - len(shown)} slides without a finding"
    if n_unseen := sum(one.unseen for one in found):
        yield f"{n_unseen} slides are on servers and unseen; what follows is without them"
    if ignoring := [one.ignored_mm2 for one in found if one.ignored_mm2]:
        yield f"{sum(ignoring):.3f} mm² on {counted(len(ignoring), 'slide')} are ignored: neither trained on nor judged"
    yield from (f"error: {finding}. Remedy: {remedy}" for finding, remedy in sheet_errors)
    yield ""
    yield from costs.lines()
    listed = ", ".join(f"{rule} {count}" for rule, count in jobs.items())
    yield f"{sum(jobs.values())} jobs from start to end, if no slide goes into quarantine: {listed}"
