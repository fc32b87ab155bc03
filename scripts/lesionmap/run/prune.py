"""Find and remove what the workflow made of slides that are no longer in the sheet."""

import re
import shutil
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from lesionmap.errors import SettingsError, StorageError
from lesionmap.files.disk_errors import naming_disk_errors
from lesionmap.files.model_metadata import load_metadata
from lesionmap.files.records import read_table, write_table
from lesionmap.formatting import counted
from lesionmap.run.exclusion import exclude, excluded_table, recorded
from lesionmap.slides.cache import copies_of, remove_copy

STAGE = "prune"
RECORDS = "slides"
ID = "[A-Za-z0-9][A-Za-z0-9._-]*"
COLUMNS = ["slide", "path", "bytes"]
TABLES = (
    "doctor.tsv",
    "doctor.json",
    "review/slides.tsv",
    "review/before/slides.tsv",
)  # these and what follows: in the folder of results
TEXTS = (".tsv", ".csv", ".json", ".txt", ".md", ".html", ".log", ".svg")
IN_REPORT = (  # in folders that are outputs of render_report as a whole
    "report/slides/{slide}.html",
    "report/files/{slide}",
    "report/figures/{slide}_overlay.png",
    "report/figures/{slide}_thumbnail.png",
    "report/figures/{slide}_stain.jpg",
    "report/figures/{slide}_stain_thumbnails.png",
)
IN_REVIEW = ("review/outlines/{slide}.geojson", "review/before/slides/{slide}.json")  # which is no output of a rule
MODEL = "model/lesionmap.safetensors"


@dataclass(frozen=True)
class Workflow:
    """What a workflow writes, and for which slides.

    Parameters
    ----------
    paths : sequence of str
        All outputs, logs and benchmarks; those of a slide hold ``{slide}``, those of experiments others, too.
    slides : collection of str
        Ids of the sheet.
    sheet : str
        The slide sheet.
    copies : mapping
        The config's ``slides.copies``.
    model : str or None
        The config's ``model.path``.
    results : str
        Folder of the results: ``results``, below the prefix with which a workflow was imported. Logs lie beside it.
    """

    paths: Sequence[str]
    slides: Collection[str]
    sheet: str
    copies: Mapping[str, Any]
    model: str | None
    results: str = "results"

    def recorded(self, slide: str) -> dict[str, str]:
        """Path and content of a slide, as its inspection recorded them."""
        return recorded(Path(self.results, RECORDS, f"{slide}.json"))


@dataclass
class Leftovers:
    """Files and folders of slides that are not in the sheet (slide → path → bytes), their copies, what is linked."""

    paths: dict[str, dict[Path, int]] = field(default_factory=lambda: defaultdict(dict))
    copies: dict[str, dict[Path, int]] = field(default_factory=dict)
    linked: list[Path] = field(default_factory=list)

    def of(self, slide: str) -> dict[Path, int]:
        """All paths of a slide, with bytes."""
        return self.paths[slide] | self.copies.get(slide, {})

    def rows(self) -> list[dict[str, Any]]:
        """Rows of the table."""
        found = ((slide, path, size) for slide in self.paths for path, size in self.of(slide).items())
        return [{"slide": slide, "path": str(path), "bytes": size} for slide, path, size in found]

    def said(self) -> str:
        """How many and how much."""
        rows = self.rows()
        size = f"{sum(row['bytes'] for row in rows) / 1e6:,.1f} MB"
        return f"{counted(len(rows), 'path')} of {counted(len(self.paths), 'slide')}, {size}"


def list_leftovers(workflow: Workflow, table: str) -> None:
    """Write and print what there is of slides that are not in the sheet; nothing is removed.

    Parameters
    ----------
    table : str
        TSV: slide, path, bytes.
    """
    found = find_leftovers(workflow)
    write_table(table, found.rows(), COLUMNS)
    lines = [f"Of slides that are not in {workflow.sheet} there are {found.said()}."]
    if found.paths:
        lines += [*_by_slide(found), *_what_names(workflow, set(found.paths))]
        lines.append(f"{table} lists every path. `snakemake prune_listed` removes what is on that list.")
    sys.stderr.write("\n".join([*lines, *_behind_links(found)]) + "\n")


def remove_leftovers(workflow: Workflow, table: str, *, busy: bool) -> None:
    """Remove what :func:`list_leftovers` listed, and note its slides as excluded.

    Parameters
    ----------
    busy : bool
        Whether another run is going on in this folder.

    Raises
    ------
    StorageError
        If another run is going on.
    SettingsError
        If there is more than was listed, so that nobody has seen all that would go. Nothing is removed then.
    """
    if busy:
        remedy = "wait for its end; if it was killed, run snakemake --unlock first"
        raise StorageError(stage=STAGE, finding="another run is going on in this folder", remedy=remedy)
    found = find_leftovers(workflow)
    listed = {row["path"] for row in read_table(table)} if Path(table).exists() else set()
    if unseen := [row["path"] for row in found.rows() if row["path"] not in listed]:
        finding = f"{counted(len(unseen), 'path')} not on the list {table}, e.g. {unseen[0]}"
        raise SettingsError(stage=STAGE, finding=finding, remedy="run snakemake prune, and look at its list first")
    if found.paths:
        exclude(workflow.sheet, found.paths, Path(workflow.results, RECORDS))  # reads records that go now
    for slide in found.paths:
        _remove(slide, found)
    write_table(table, [], COLUMNS)
    lines = [f"Removed {found.said()}."]
    if found.paths:
        lines.append(f"{excluded_table(workflow.sheet)} names them, so that new_slides.sh does not add them again.")
        lines += _what_names(workflow, set(found.paths))
    in_use = [str(copy) for copies in found.copies.values() for copy in copies if copy.exists()]
    lines += [f"Left as a job is reading them: {', '.join(in_use)}"] if in_use else []
    sys.stderr.write("\n".join([*lines, *_behind_links(found)]) + "\n")


def find_leftovers(workflow: Workflow) -> Leftovers:
    """Paths that have the names of the workflow's own, for slides that are not in the sheet."""
    patterns = [path for pattern in workflow.paths if "{slide}" in pattern for path in _of_variants(pattern)]
    patterns += [f"{workflow.results}/{path}" for path in (*IN_REPORT, *IN_REVIEW)]
    for_all = {path for path in workflow.paths if "{slide}" not in path}
    slides = {slide for pattern in patterns for slide in _slides_of(pattern, for_all)}
    found, hidden = Leftovers(), cache(lambda folder: list(folder.glob(".*")))
    for slide in sorted(slides - set(workflow.slides)):
        for path in (path for pattern in patterns for path in _made(Path(pattern.format(slide=slide)), hidden)):
            if _behind_a_link(path, Path(workflow.results).parent):
                found.linked.append(path)
            elif str(path) not in for_all:
                found.paths[slide][path] = _size(path)
    _add_copies(found, workflow)
    return found


def _of_variants(pattern: str) -> Iterator[str]:
    """A pattern for each of the folders that experiments have of it: below each variant and seed."""
    folder = pattern.partition("{slide}")[0].rpartition("/")[0]
    if "{" in folder:
        yield from (f"{found}{pattern[len(folder) :]}" for found in Path().glob(re.sub(r"{\w+}", "*", folder)))
    else:
        yield pattern


def _behind_a_link(path: Path, prefix: Path) -> bool:
    """Whether the way to a path leads out of the folder of results by a link; that folder itself may be one."""
    top = prefix / path.relative_to(prefix).parts[0]
    return path.parent.resolve() != top.resolve() / path.parent.relative_to(top)


def _slides_of(pattern: str, for_all: Collection[str]) -> Iterator[str]:
    """Ids for which there is a path of a pattern."""
    before, after = map(re.escape, pattern.split("{slide}"))
    whole = re.compile(f"{before}({ID}){after}")
    paths = map(str, Path().glob(pattern.replace("{slide}", "*")))
    found = (whole.fullmatch(path) for path in paths if path not in for_all)
    yield from (match[1] for match in found if match)


def _made(path: Path, hidden: Callable[[Path], list[Path]]) -> Iterator[Path]:
    """A path if it is there, and drafts of it that killed jobs left."""
    if path.exists() or path.is_symlink():
        yield path
    of_file = rf"\.{re.escape(path.stem)}\.[^/]+-\d+{re.escape(path.suffix)}"
    draft = re.compile(rf"{of_file}|\.{re.escape(path.name)}\.draft")
    yield from (other for other in hidden(path.parent) if draft.fullmatch(other.name))


def _size(path: Path) -> int:
    inside = path.rglob("*") if path.is_dir() and not path.is_symlink() else ()
    return sum(one.lstat().st_size for one in (path, *inside) if one.is_symlink() or not one.is_dir())


def _add_copies(found: Leftovers, workflow: Workflow) -> None:
    """The slide cache may be shared with other projects: only copies of these very slides belong to them."""
    contents = {slide: workflow.recorded(slide)["sha256"] for slide in found.paths}
    if not any(contents.values()):
        return
    kept = {workflow.recorded(slide)["sha256"] for slide in workflow.slides}
    for slide, content in contents.items():
        if content and content not in kept:
            found.copies[slide] = copies_of(content, workflow.copies["folder"])


def _remove(slide: str, found: Leftovers) -> None:
    for path in found.paths[slide]:
        with naming_disk_errors(path):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
            if path.parent.name == slide and not any(path.parent.iterdir()):
                path.parent.rmdir()
    for copy in found.copies.get(slide, {}):
        remove_copy(copy)


def _by_slide(found: Leftovers) -> Iterator[str]:
    for slide in found.paths:
        paths = found.of(slide)
        yield f"  {slide}: {counted(len(paths), 'path')}, {sum(paths.values()) / 1e6:,.1f} MB"


def _what_names(workflow: Workflow, slides: set[str]) -> Iterator[str]:
    """What of the whole cohort was made from the slides or names them, and what becomes of it."""
    mention = re.compile(rf"(?<![\w.-])({'|'.join(map(re.escape, sorted(slides, reverse=True)))})(?![\w-])")
    written = [*workflow.paths, *(f"{workflow.results}/{name}" for name in TABLES)]
    texts = [Path(path) for path in written if path.endswith(TEXTS) and Path(path).is_file()]
    naming = [str(path) for path in texts if mention.search(path.read_text(encoding="utf-8", errors="replace"))]
    if naming:
        yield f"Of the whole cohort, these name them until a run writes them anew: {', '.join(naming)}"
    anew = "No run makes it anew: delete it" if workflow.model else "The next run trains a new one and maps all slides"
    given = {workflow.model: "Take another as model.path"} if workflow.model else {}
    for model, remedy in ({f"{workflow.results}/{MODEL}": anew} | given).items():
        if seen := _slides_of_model(model) & slides:
            yield f"{model} was made with {', '.join(sorted(seen))} and names them. {remedy}; find its copies yourself."


def _slides_of_model(path: str) -> set[str]:
    metadata = load_metadata(path) if Path(path).is_file() else {}
    return {*metadata.get("training_slides", {}), *metadata.get("validation_slides", {})}


def _behind_links(found: Leftovers) -> Iterator[str]:
    if found.linked:
        yield f"Left as they lie behind a link, remove them yourself: {', '.join(map(str, found.linked))}"
