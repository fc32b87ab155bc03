"""Damaged copies of real files: every one is used or refused with its reason, none crashes, hangs or leaves a draft."""

import io
import json
import random
import re
import resource
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import wait
from pathlib import Path

import pytest
import tifffile
from lesionmap.annotations.canonical import AnnotationSettings, import_annotation
from lesionmap.jobs.quarantine import quarantined, slide_job
from lesionmap.slides.inspection import inspect_slide
from lesionmap.slides.sheet import SlideRow
from lesionmap.slides.slide import Slide, SlideInfo, load_info
from lesionmap.tissue.detection import TissueSettings, find_tissue
from odd_tiffs import scaled, write_odd_tiff, write_ome_tiff
from pyramids import INSPECTION, info_of, inspection_files
from shapely.geometry import shape

DATA = Path(__file__).parents[3] / "shared/data"
SLIDE = DATA / "slides/camelyon_1.tif"
ANNOTATIONS = sorted((DATA / "annotations").glob("*")) if DATA.exists() else []

COPIES = 200
WORKERS = 2
LONGEST_S = 20
MOST_MEMORY_BYTES = 4 * 2**30

pytestmark = pytest.mark.skipif(not DATA.exists(), reason="the real files of ../shared/data are absent")

Mutation = Callable[[bytes, random.Random], bytes]


def flip_bits_anywhere(content: bytes, chance: random.Random) -> bytes:
    return _flipped(content, range(len(content)), chance.choice((1, 10, 100)), chance)


def cut_anywhere(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content))]


def cut_near_an_end(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.choice((0, 1, 4, 8, 100, len(content) - 1, len(content) - 2, len(content) - 100))]


def zero_a_block(content: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(0, len(content), 4096)
    return _replaced(content, start, bytes(65536))


def zero_the_tail(content: bytes, chance: random.Random) -> bytes:
    return _replaced(content, chance.randrange(len(content)), bytes(len(content)))


def overwrite_with_noise(content: bytes, chance: random.Random) -> bytes:
    return _replaced(content, chance.randrange(len(content)), chance.randbytes(chance.choice((1, 16, 4096))))


def repeat_a_block(content: bytes, chance: random.Random) -> bytes:
    start, end = sorted(chance.randrange(len(content)) for _ in range(2))
    return content[:end] + content[start:]


def drop_a_block(content: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(content))
    return content[:start] + content[start + chance.choice((1, 2, 512, 65536)) :]


def flip_bits_of_tags(content: bytes, chance: random.Random) -> bytes:
    return _flipped(content, _tag_bytes(content), chance.choice((1, 2, 5)), chance)


def write_extreme_tag_values(content: bytes, chance: random.Random) -> bytes:
    for entry in chance.sample(_tag_entries(content), chance.choice((1, 2, 3))):
        value = chance.choice((0, 1, 255, 257, 65535, 2**20, 2**24, 2**30, 2**31 - 1, 2**31, 2**32 - 1))
        field = chance.choice((4, 8, 8, 8))  # the count or the value
        content = _replaced(content, entry + field, struct.pack(f"{_byteorder(content)}I", value))
    return content


def change_sizes(content: bytes, chance: random.Random) -> bytes:
    order = _byteorder(content)
    tags = ((entry, struct.unpack_from(f"{order}H", content, entry)[0]) for entry in _tag_entries(content))
    sizes = [entry for entry, tag in tags if tag in (256, 257, 322, 323)]
    for entry in chance.sample(sizes, min(len(sizes), chance.choice((1, 2, 4)))):
        content = _replaced(content, entry + 8, struct.pack(f"{order}I", 2 ** chance.randrange(32)))
    return content


def link_directories_wrongly(content: bytes, chance: random.Random) -> bytes:
    order, directories = _byteorder(content), [page.offset for page in _pages(content)]
    start = chance.choice(directories)
    end = start + 2 + 12 * struct.unpack_from(f"{order}H", content, start)[0]
    following = chance.choice([*directories, chance.randrange(len(content)), len(content), 2**32 - 1])
    return _replaced(content, end, struct.pack(f"{order}I", following))


def drop_a_character(content: bytes, chance: random.Random) -> bytes:
    at = chance.choice([at for at, byte in enumerate(content[:100_000]) if byte in b"<>{}[]\"',:/"])
    return content[:at] + content[at + 1 :]


def change_digits(content: bytes, chance: random.Random) -> bytes:
    digits = [at for at, byte in enumerate(content[:100_000]) if byte in b"0123456789."]
    for at in chance.sample(digits, min(len(digits), chance.choice((1, 10, 100)))):
        content = _replaced(content, at, chance.choice((b"0", b"9", b"-", b"e", b".", b" ")))
    return content


def write_extreme_numbers(content: bytes, chance: random.Random) -> bytes:
    extremes = (b"0", b"-1", b"1e9", b"-1e300", b"1e308", b"1e-320", b"NaN", b"null", b"9" * 400)
    return _with_some_tokens(content, rb"-?\d+(?:\.\d+)?", extremes, chance)


def swap_words(content: bytes, chance: random.Random) -> bytes:
    return _with_some_tokens(content, rb"[A-Za-z]+", re.findall(rb"[A-Za-z]+", content[:100_000]), chance)


ANYWHERE: tuple[Mutation, ...] = (
    flip_bits_anywhere,
    cut_anywhere,
    cut_near_an_end,
    zero_a_block,
    zero_the_tail,
    overwrite_with_noise,
    repeat_a_block,
    drop_a_block,
)
OF_TIFFS = flip_bits_of_tags, write_extreme_tag_values, change_sizes, link_directories_wrongly
OF_TEXTS = drop_a_character, change_digits, write_extreme_numbers, swap_words


def _flipped(content: bytes, places: range | list[int], n_bits: int, chance: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(n_bits):
        changed[chance.choice(places)] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _with_some_tokens(content: bytes, pattern: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    tokens = list(re.finditer(pattern, content))
    for token in sorted(chance.sample(tokens, chance.choice((1, 2, 5))), key=re.Match.start, reverse=True):
        content = content[: token.start()] + chance.choice(others) + content[token.end() :]
    return content


def _replaced(content: bytes, start: int, part: bytes) -> bytes:
    return (content[:start] + part + content[start + len(part) :])[: len(content)]


def _byteorder(content: bytes) -> str:
    return ">" if content.startswith(b"MM") else "<"


def _pages(content: bytes) -> list[tifffile.TiffPage]:
    """The directories of a TIFF, with those of its SubIFDs; empty once a mutation has made it unreadable."""
    try:
        with tifffile.TiffFile(io.BytesIO(content)) as tiff:
            return [part for page in tiff.pages for part in (page.aspage(), *(page.aspage().pages or ()))]
    except Exception:
        return []


def _tag_entries(content: bytes) -> list[int]:
    return [tag.offset for page in _pages(content) for tag in page.tags]


def _tag_bytes(content: bytes) -> list[int]:
    """Where the header, the directories and the values of their tags are."""
    tags = [tag for page in _pages(content) for tag in page.tags]
    entries = [at for tag in tags for at in range(tag.offset, tag.offset + 12)]
    values = [at for tag in tags for at in range(tag.valueoffset, tag.valueoffset + tag.valuebytecount)]
    return [*range(8), *entries, *values]


@dataclass(frozen=True)
class Copy:
    """One damaged copy, and the folder that it and its results are in."""

    source: Path
    mutation: Mutation
    seed: int
    folder: Path

    def write(self) -> Path:
        path = self.folder / self.source.name
        path.write_bytes(self.mutation(self.source.read_bytes(), random.Random(self.seed)))
        return path

    def __str__(self) -> str:
        return f"{self.source.name}, {self.mutation.__name__}, seed {self.seed}"


def copies(source: Path, mutations: tuple[Mutation, ...], folder: Path) -> Iterator[Copy]:
    for seed in range(COPIES):
        place = folder / f"{source.stem}_{seed}"
        place.mkdir()
        yield Copy(source, mutations[seed % len(mutations)], seed, place)


def outcomes(work: Callable[[Copy], str], all_copies: Iterator[Copy]) -> Counter[str]:
    """Do the work on each copy in a process of its own; how often it ended how.

    Raises
    ------
    AssertionError
        Naming every copy at which a process failed or took too long.
    """
    running: dict[int, tuple] = {}
    ended: Counter[str] = Counter()
    failures: list[str] = []
    for copy in all_copies:
        process = get_context("fork").Process(target=_limited, args=(work, copy))
        process.start()
        running[process.sentinel] = process, copy, time.monotonic() + LONGEST_S
        if len(running) == WORKERS:
            _collect(running, ended, failures)
    while running:
        _collect(running, ended, failures)
    assert not failures, "\n".join(failures)
    return ended


def _limited(work: Callable[[Copy], str], copy: Copy) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY_BYTES, MOST_MEMORY_BYTES))
    (copy.folder / "outcome").write_text(work(copy))


def _collect(running: dict[int, tuple], ended: Counter[str], failures: list[str]) -> None:
    """Wait for the next process to end, or for its time to."""
    first_deadline = min(deadline for _, _, deadline in running.values())
    ready = wait(list(running), timeout=max(0.0, first_deadline - time.monotonic()))
    late = [sentinel for sentinel, (_, _, deadline) in running.items() if deadline <= time.monotonic()]
    for sentinel in {*ready, *late}:
        process, copy, _ = running.pop(sentinel)
        if sentinel not in ready:
            process.kill()
            failures.append(f"{copy}: still running after {LONGEST_S} s")
        process.join()
        if sentinel in ready and process.exitcode:
            failures.append(f"{copy}: exit code {process.exitcode}, see {copy.folder}")
        elif sentinel in ready:
            ended[(copy.folder / "outcome").read_text()] += 1


TISSUE = TissueSettings(mpp=4.0, min_area_um2=2000, min_hole_um2=2000)


def inspect_and_find_tissue(copy: Copy) -> str:
    path, results = copy.write(), copy.folder / "results"
    files, tissue_path = inspection_files(results), results / "tissue.tif"
    inspect_slide(SlideRow("s1", str(path), "train"), files, INSPECTION)
    inspected = set(results.iterdir())
    record = json.loads(Path(files.record).read_text())
    if record["verdict"] == "quarantined":
        assert record["finding"]
        assert record["remedy"]
        assert inspected == {Path(file) for file in vars(files).values()}
        return "refused"
    with slide_job("s1", str(copy.folder / "log"), [files.info], [str(tissue_path)]):
        find_tissue(load_info(files.info, files.location), str(tissue_path), TISSUE)
    assert set(results.iterdir()) == {*inspected, tissue_path}
    return "flagged" if record["flags"] else "ok"


ANNOTATED = SlideInfo(
    slide="s1",
    path="absent",
    identity="",
    vendor="generic-tiff",
    size_lv0=(500_000, 500_000),  # larger than the slide of any of the files
    mpp=0.25,
    downsamples=(1.0,),
    level_sizes=((500_000, 500_000),),
    bounds_xy_lv0=(0, 0),
)
MEANINGS = AnnotationSettings(
    classes={"Tumor": "lesion", "Exclusion": "hole", "*": "lesion"}, mask_values={"1": "lesion"}, invalid="repair"
)


def import_into_canonical_form(copy: Copy) -> str:
    path, results = copy.write(), copy.folder / "results"
    output = results / "annotation.geojson"
    with slide_job("s1", str(copy.folder / "log"), [], [str(output)]):
        import_annotation(str(path), ANNOTATED, str(output), MEANINGS)
    assert set(results.iterdir()) == {output}
    if reason := quarantined(str(output)):
        assert reason.finding
        assert reason.remedy
        return "refused"
    content = json.loads(output.read_text())
    assert content["type"] == "FeatureCollection"
    for feature in content["features"]:
        assert feature["properties"]["class"] == "lesion"
        assert shape(feature["geometry"]).is_valid
    return "ok"


TIFFFILE_KINDS = {
    "ome-jpeg": partial(write_ome_tiff, compression="jpeg"),
    "big-endian-16-bits": partial(write_odd_tiff, as_stored=scaled("u2", 65535), byteorder=">"),
    "webp": partial(write_odd_tiff, compression="webp"),
    "jpeg-2000": partial(write_odd_tiff, compression="jpeg2000"),
}


def slide_of_kind(kind: str, folder: Path) -> Path:
    """The real slide, or 1024 × 768 px of it as a TIFF that OpenSlide does not read."""
    if kind == "openslide":
        return SLIDE
    with Slide(info_of(SLIDE), "test") as slide:
        return TIFFFILE_KINDS[kind](folder / f"{kind}.tif", slide.read((700, 300), (1024, 768), 0.25))


@pytest.mark.parametrize("kind", ["openslide", *TIFFFILE_KINDS])
def test_damaged_slides_are_used_or_refused(tmp_path, kind):
    source = slide_of_kind(kind, tmp_path)
    ended = outcomes(inspect_and_find_tissue, copies(source, ANYWHERE + OF_TIFFS, tmp_path))
    assert ended.total() == COPIES
    assert ended["refused"] > COPIES / 4
    assert ended["ok"] + ended["flagged"] > COPIES / 30  # lossless tiles, large parts of a small slide, tell every bit


@pytest.mark.parametrize("source", ANNOTATIONS, ids=lambda path: path.name)
def test_damaged_annotations_are_used_or_refused(tmp_path, source):
    ended = outcomes(import_into_canonical_form, copies(source, ANYWHERE + OF_TEXTS, tmp_path))
    assert ended.total() == COPIES
    assert ended["refused"] > COPIES / 4
    assert ended["ok"] > 0
