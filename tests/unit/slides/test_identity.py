"""What a slide is made of, and by what an exchange of one of its files is noticed."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from lesionmap.errors import ChangedSlideError
from lesionmap.slides.cache import IN_PLACE, cached_slide
from lesionmap.slides.identity import MOST_WATCHED, check_unchanged, content_digest, sampled_digest, slide_parts
from lesionmap.slides.identity import slide_state as state
from lesionmap.slides.inspection import inspect_slide
from lesionmap.slides.slide import Slide
from pydicom.uid import generate_uid
from pyramids import INSPECTION, inspection_files, row, slides_config, write_tiff
from vendor_slides import write_instance, write_mirax, write_vms


def noise(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(90, 250, (320, 512, 3), dtype=np.uint8)


def mirax(folder: Path, image: np.ndarray) -> Path:
    return write_mirax(folder / "a b.mrxs", image, 0.25, corner_px=(0, 0), grid=(4, 3))


def vms(folder: Path, image: np.ndarray) -> Path:
    return write_vms(folder / "s.vms", image, 0.25)


def dicom(folder: Path, image: np.ndarray) -> Path:
    series = generate_uid()
    for factor, name in ((1, "IM1"), (4, "IM2.DCM")):
        level = image[::factor, ::factor]
        write_instance(folder / name, level, 0.25 * factor, resampled=factor > 1, SeriesInstanceUID=series)
    return folder / "IM1"


def tiff(folder: Path, image: np.ndarray) -> Path:
    return write_tiff(folder / "s.tif", image)


MADE = {
    mirax: {"a b.mrxs", "Slidedat.ini", "Index.dat", "Data0000.dat"},
    vms: {"s.vms", "s 0.jpg", "s 1.jpg", "s 2.jpg", "s 3.jpg"},
    dicom: {"IM1", "IM2.DCM"},
    tiff: {"s.tif"},
}
every_format = pytest.mark.parametrize("make", MADE, ids=lambda make: make.__name__)
of_several_files = pytest.mark.parametrize("make", [mirax, vms, dicom], ids=lambda make: make.__name__)


@every_format
def test_the_parts_of_a_slide_are_those_that_its_format_names(make, tmp_path):
    path = make(tmp_path, noise())
    assert {part.name for part in slide_parts(path)} == MADE[make]
    before = state(path), content_digest(path), sampled_digest(path)
    for folder in {part.parent for part in slide_parts(path)}:
        (folder / "Thumbs.db").write_bytes(b"of no slide")
    assert (state(path), content_digest(path), sampled_digest(path)) == before
    assert int(before[0].split()[0]) == sum(part.stat().st_size for part in slide_parts(path))


@every_format
def test_any_exchange_of_any_part_is_seen_whatever_its_date(make, tmp_path):
    path = make(tmp_path, noise())
    for part in slide_parts(path):
        before, digests, dates = state(path), (content_digest(path), sampled_digest(path)), part.stat()
        os.utime(part, ns=(0, dates.st_mtime_ns - 3_000_000_000_001))
        assert state(path) != before, f"{part.name}, older by a fraction of a second"
        os.utime(part, ns=(0, dates.st_mtime_ns))
        assert state(path) == before
        content = part.read_bytes()
        part.write_bytes(content + b" ")
        os.utime(part, ns=(0, dates.st_mtime_ns))
        assert state(path) != before, f"{part.name}, of another size and the same date"
        assert not {content_digest(path), sampled_digest(path)} & set(digests)
        part.write_bytes(content)
        os.utime(part, ns=(0, dates.st_mtime_ns))
        assert (state(path), content_digest(path), sampled_digest(path)) == (before, *digests)


@of_several_files
def test_a_part_that_is_missing_and_arrives_later_is_seen(make, tmp_path):
    path = make(tmp_path, noise())
    *_, last = (part for part in slide_parts(path) if part != path)
    whole = state(path), content_digest(path), sampled_digest(path)
    (tmp_path / "elsewhere").mkdir()
    last.rename(tmp_path / "elsewhere/part")
    lacking = state(path), content_digest(path), sampled_digest(path)
    assert all(one != other for one, other in zip(whole, lacking, strict=True))
    shutil.copy2(tmp_path / "elsewhere/part", last)
    assert (state(path), content_digest(path), sampled_digest(path)) == whole


def test_the_folder_of_a_mirax_slide_may_arrive_later(tmp_path):
    path = mirax(tmp_path, noise())
    whole = state(path)
    path.with_suffix("").rename(tmp_path / "elsewhere")
    assert state(path) != whole
    assert [part.name for part in slide_parts(path)] == ["a b.mrxs", "Slidedat.ini"]
    (tmp_path / "elsewhere").rename(path.with_suffix(""))
    assert state(path) == whole


def test_the_index_of_a_mirax_slide_may_be_of_any_encoding(tmp_path):
    folder = tmp_path / "s"
    folder.mkdir()
    lines = [
        "[HIERARCHICAL]",
        "INDEXFILE = Index.dat",
        "[DATAFILE]",
        "FILE_0 = Präp.dat",
        "FILE_10=b.dat",
        "FILE_COUNT = 2",
    ]
    text = "\r\n".join(lines)
    for encoded, name in ((b"\xef\xbb\xbf" + text.encode(), "Präp.dat"), (text.encode("latin-1"), "Pr\udce4p.dat")):
        (folder / "Slidedat.ini").write_bytes(encoded)
        assert {part.name for part in slide_parts(tmp_path / "s.mrxs")[2:]} == {"Index.dat", name, "b.dat"}


def test_other_slides_in_a_large_dicom_folder_are_not_watched(tmp_path):
    path = dicom(tmp_path, noise())
    for number in range(MOST_WATCHED):
        shutil.copy(path, tmp_path / f"copy {number}")  # of the same series: parts
    many = state(path)
    other = generate_uid()
    write_instance(tmp_path / "late", noise()[:64, :64], 0.25, resampled=False, SeriesInstanceUID=other)
    assert state(path) == many
    (tmp_path / "copy 7").touch()
    assert state(path) != many


def test_pieces_of_large_files_are_sampled_all_over(tmp_path):
    size, path = 64 * 2**18, tmp_path / "large.svs"
    content = bytearray(size)
    path.write_bytes(content)
    plain = sampled_digest(path)
    for at in (0, size // 2 - 2**17, size - 1):
        content[at] = 1
        path.write_bytes(content)
        assert sampled_digest(path) != plain, at
        content[at] = 0
    path.write_bytes(content)
    assert sampled_digest(path) == plain


def inspected(tmp_path: Path, path: Path):
    files = inspection_files(tmp_path)
    inspect_slide(row(path), files, INSPECTION)
    return files


def exchange(path: Path) -> None:
    write_tiff(path, noise(1))


def exchange_with_the_same_size_and_date(path: Path) -> None:
    before = path.stat()
    write_tiff(path, noise()[::-1].copy())
    content = path.read_bytes()[: before.st_size].ljust(before.st_size, b"\0")
    path.write_bytes(content)
    os.utime(path, ns=(0, before.st_mtime_ns + 1))


def remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (exchange, "is not the file that was inspected"),
        (exchange_with_the_same_size_and_date, "is not the file that was inspected"),
        (remove, "is no longer there"),
    ],
)
@pytest.mark.parametrize("late", [False, True])
def test_a_job_refuses_a_slide_that_is_not_the_inspected_one(
    tmp_path: Path, change: Callable[[Path], None], told: str, *, late: bool
) -> None:
    path = tiff(tmp_path, noise())
    files = inspected(tmp_path, path)
    if not late:
        change(path)
    expected = pytest.raises(ChangedSlideError, match=f"{path} {told}.* Remedy: put the slide back, or run again")
    with (
        expected,
        cached_slide(files.info, files.location, slides_config(IN_PLACE)) as info,
        Slide(info, "test") as slide,
    ):
        assert late, "a slide that was exchanged before is not opened"
        slide.read((0, 0), (10, 10), 0.25)
        change(path)


def test_a_slide_that_was_touched_or_copied_is_accepted(tmp_path):
    path = tiff(tmp_path, noise())
    files = inspected(tmp_path, path)
    path.rename(tmp_path / "other")
    shutil.copy(tmp_path / "other", path)
    with cached_slide(files.info, files.location, slides_config(IN_PLACE)) as info:
        assert info.path == str(path)
    check_unchanged(str(path), state="another", sample=sampled_digest(path))
