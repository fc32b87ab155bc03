"""Cohorts of thousands of slides that are done, made of a few that really went through the workflow."""

import ast
import base64
import json
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lesionmap.files.records import sha256, write_json, write_text
from lesionmap.run.manifest import build_manifest

Copies = Mapping[str, Sequence[str]]  # slide of the few → names under which the many have it
RECORD, MANIFEST, ANNOTATIONS = "results/slides/{slide}.json", "results/manifest.tsv", "results/annotations.tsv"
BEFORE_THE_REST = ("inspect_slide", "build_manifest", "import_annotation", "list_annotations")
TIMESTAMP = ".snakemake_timestamp"  # by which Snakemake goes where a result is a folder
NOT_PLANNED = ("results/benchmarks/", "results/report/slides/", "results/report/figures/", "results/report/viewer/")
IN_VIEWS = re.compile("results/report/views/[^/]+/.")
LISTED = re.compile(r"\['[^\[\]]*'\]")


def multiply(few: Path, many: Path, copies: Copies, *, done: bool) -> None:
    """Make a folder with a finished cohort one of many slides.

    Slides and their results are hard links, so that times and contents are the originals'. Only a slide's record is
    written anew, with its name, as the manifest is made of these. Snakemake's own records, a JSON file for each output
    in .snakemake/metadata, get the names exchanged, those of the cohort's results the inputs of all.

    Parameters
    ----------
    few, many : Path
        The first stays as it is.
    copies : mapping
    done : bool
        False: neither results nor records, only slides, annotations, sheet and config.
    """
    many.mkdir(parents=True)
    for path in few.glob("*.*"):
        if path.is_file():
            shutil.copy2(path, many)
    write_sheet(few, many, copies)
    link_files(few, many, copies, "slides", "annotations", *(["results"] if done else []))
    if done:
        _multiply_records(few, many, copies, add_inspected(few, many, copies))


def write_sheet(few: Path, many: Path, copies: Copies) -> None:
    """The slide sheet of the many."""
    head, *rows = (few / "slides.tsv").read_text(encoding="utf-8").splitlines()
    of_slide = {row.split("\t")[0]: row for row in rows}
    lines = [head, *(of_slide[slide].replace(slide, copy) for slide, names in copies.items() for copy in names)]
    write_text(many / "slides.tsv", "".join(f"{line}\n" for line in lines))


def link_files(few: Path, many: Path, copies: Copies, *parts: str) -> None:
    """Link what some folders hold of each slide, and copy what they hold of the cohort."""
    for part in parts:
        for path in (few / part).rglob("*"):
            name = path.relative_to(few).as_posix()
            unneeded = name.startswith(NOT_PLANNED) or IN_VIEWS.match(name)
            if path.is_file() and (not unneeded or path.name == TIMESTAMP):
                _link_file(path, name, many, copies)


def _link_file(path: Path, name: str, many: Path, copies: Copies) -> None:
    slide = slide_of(name, copies)
    for target in [name.replace(slide, copy) for copy in copies[slide]] if slide else [name]:
        (many / target).parent.mkdir(parents=True, exist_ok=True)
        if not slide:
            shutil.copy2(path, many / target)
        elif name != RECORD.format(slide=slide):
            (many / target).unlink(missing_ok=True)
            os.link(path, many / target)


def slide_of(text: str, copies: Copies) -> str | None:
    """The slide that a path is of; None: the cohort's."""
    return next((slide for slide in copies if slide in text), None)


def add_inspected(few: Path, many: Path, copies: Copies) -> dict[str, str]:
    """Make all slides inspected, but for Snakemake's records of it; digests of their own records."""
    digests = {}
    for slide, names in copies.items():
        original = few / RECORD.format(slide=slide)
        text = original.read_text(encoding="utf-8")
        for name in names:
            copy = many / RECORD.format(slide=name)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(text.replace(slide, name), encoding="utf-8")
            _same_time(original, copy)
            digests[name] = sha256(copy)
    slides = [name for names in copies.values() for name in names]
    build_manifest([str(many / RECORD.format(slide=name)) for name in slides], str(many / MANIFEST))
    _same_time(few / MANIFEST, many / MANIFEST)
    return digests


def _same_time(original: Path, copy: Path) -> None:
    stat = original.stat()
    os.utime(copy, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def multiply_inspection(few: Path, many: Path, copies: Copies) -> None:
    """Make all slides inspected and all annotations imported, and nothing else."""
    link_files(few, many, copies, "results/slides/info", "results/slides/location", "results/annotations")
    shutil.copy2(few / ANNOTATIONS, many / ANNOTATIONS)
    _multiply_records(few, many, copies, add_inspected(few, many, copies), only=BEFORE_THE_REST)


def metadata(folder: Path) -> Iterator[tuple[str, str]]:
    """Outputs, and Snakemake's records of them as they stand."""
    for path in (folder / ".snakemake/metadata").iterdir():
        yield base64.urlsafe_b64decode(path.name).decode(), path.read_text(encoding="utf-8")


def write_metadata(folder: Path, output: str, record: str) -> None:
    """Snakemake's record of one output."""
    place = folder / ".snakemake/metadata"
    place.mkdir(parents=True, exist_ok=True)
    (place / base64.urlsafe_b64encode(output.encode()).decode()).write_text(record, encoding="utf-8")


def _multiply_records(
    few: Path, many: Path, copies: Copies, digests: Mapping[str, str], only: Sequence[str] = ()
) -> None:
    before = {slide: sha256(few / RECORD.format(slide=slide)) for slide in copies}
    for output, record in metadata(few):
        if only and json.loads(record)["rule"] not in only:
            continue
        slide = slide_of(output, copies)
        if slide is None:
            write_metadata(many, output, json.dumps(_with_all_inputs(json.loads(record), copies, digests)))
        for copy in copies[slide] if slide else []:
            content = json.loads(record.replace(slide, copy).replace(before[slide], digests[copy]))
            content["input"].sort()
            write_metadata(many, output.replace(slide, copy), json.dumps(content))


def _with_all_inputs(record: dict[str, Any], copies: Copies, digests: Mapping[str, str]) -> dict[str, Any]:
    sums = record["input_checksums"]
    inputs, checksums = [], {}
    for path in record["input"]:
        slide = slide_of(path, copies)
        for copy in copies[slide] if slide else [""]:
            target = path.replace(slide, copy) if slide else path
            inputs.append(target)
            if path in sums:
                own = slide and path == RECORD.format(slide=slide)
                checksums[target] = f"sha256:{digests[copy]}" if own else sums[path]
    params = sorted(LISTED.sub(partial(_all_of, copies), text) for text in record["params"])
    return record | {"input": sorted(inputs), "input_checksums": checksums, "params": params}


def _all_of(copies: Copies, listed: re.Match[str]) -> str:
    """A list of slides in a parameter, with all their copies."""
    slides = ast.literal_eval(listed[0])
    return repr([copy for slide in slides for copy in copies[slide]]) if set(slides) <= set(copies) else listed[0]


def own_files(folder: Path, slide: str) -> None:
    """Give a slide files of its own in place of links, with the same times."""
    for path in [*folder.glob(f"*/{slide}.*"), *(folder / "results").rglob(f"{slide}*")]:
        for file in path.rglob("*") if path.is_dir() else [path]:
            draft = file.with_name("draft")
            shutil.copy2(file, draft)
            draft.replace(file)


def write_floor(few: Path, copies: Copies, many: Path) -> None:
    """Write a bare workflow of the same rules with the same inputs and outputs, and nothing else.

    Taken from Snakemake's records: no checkpoint, no function, no parameter, no resource, no group.
    """
    outputs: dict[str, set[str]] = defaultdict(set)
    inputs: dict[str, set[str]] = defaultdict(set)
    for output, text in metadata(few):
        record, slide = json.loads(text), slide_of(output, copies)
        folder = (few / output).is_dir()
        pattern = repr(output.replace(slide, "{slide}") if slide else output)
        outputs[record["rule"]].add(f"directory({pattern})" if folder else pattern)
        for path in record["input"]:
            of = slide_of(path, copies)
            if slide is None and of:
                inputs[record["rule"]].add(f"expand({path.replace(of, '{slide}')!r}, slide=COPIES[{of!r}])")
            else:
                inputs[record["rule"]].add(repr(path.replace(slide, "{slide}") if slide else path))
    targets = ("results/report/index.html", "results/model/MODEL_CARD.md", "results/tiles/summary.tsv")
    write_json(many / "copies.json", copies)
    lines = ["import json", "COPIES = json.load(open('copies.json'))"]
    lines += ["wildcard_constraints:", r"    slide=r'[A-Za-z0-9][A-Za-z0-9._-]*'"]
    lines += ["rule all:", "    input:", *(f"        {t!r}," for t in (*targets, "results/conclusion.txt"))]
    for rule in outputs:
        lines += [f"rule {rule}:", "    input:", *(f"        {path}," for path in sorted(inputs[rule]))]
        lines += ["    output:", *(f"        {path}," for path in sorted(outputs[rule]))]
        lines += ["    shell:", "        'touch {output}'"]
    write_text(many / "floor.smk", "\n".join(lines) + "\n")
