import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from lesionmap.errors import ChangedSlideError, RemoteError, SettingsError, SlideError
from lesionmap.files.records import read_json
from lesionmap.slides.cache import CacheSettings, SlideCache, cached_slide
from lesionmap.slides.inspection import inspect_slide
from lesionmap.slides.slide import Slide
from pyramids import INSPECTION, damage, info_of, inspection_files, row, slides_config, write_tiff
from vendor_slides import write_dicom, write_mirax
from web_server import serving

NAMES = ("0123456789abcdef-40", "1123456789abcdef-40", "2123456789abcdef-40")


@pytest.fixture
def copies(tmp_path, monkeypatch) -> CacheSettings:
    monkeypatch.setenv("SCRATCH", str(tmp_path))
    return CacheSettings("remote", "$SCRATCH/copies", 0.01, roots=None)


@pytest.fixture
def server(tmp_path, noise):
    (tmp_path / "served/2026").mkdir(parents=True)
    write_tiff(tmp_path / "served/2026/a b.tif", noise, factors=(1, 2, 4))
    with serving(tmp_path / "served") as server:
        yield server


def inspected(address, folder, copies, **changes):
    files = inspection_files(folder)
    inspect_slide(row(address), files, replace(INSPECTION, **changes), copies)
    return files


def downloads(server):
    return [path for method, path in server.asked if method == "GET"]


def test_a_remote_slide_is_inspected_as_one_at_hand_and_comes_once(server, tmp_path, copies, noise):
    address = f"{server.address}/2026/a%20b.tif"
    files = inspected(address, tmp_path, copies)
    local = inspected(str(tmp_path / "served/2026/a b.tif"), tmp_path / "served", copies)
    assert read_json(files.record)["info"] == read_json(local.record)["info"]
    assert read_json(files.location)["path"] == address
    for _ in range(2):
        with cached_slide(files.info, files.location, slides_config(copies)) as info, Slide(info, "test") as slide:
            np.testing.assert_array_equal(slide.read((0, 0), (517, 333), 0.25), noise)
            assert Path(info.path).is_relative_to(tmp_path / "copies")
    assert downloads(server) == ["/2026/a%20b.tif"]


def test_a_local_slide_stays_where_it_is(tmp_path, noise, copies):
    files = inspected(str(write_tiff(tmp_path / "a.tif", noise)), tmp_path, copies)
    with cached_slide(files.info, files.location, slides_config(copies)) as info:
        assert info.path == str(tmp_path / "a.tif")
    assert not (tmp_path / "copies").exists()


@pytest.mark.parametrize("name", ["slide.tif", "slide.mrxs", "slide.dcm"])
def test_all_files_of_a_local_slide_are_copied_if_asked_for(tmp_path, noise, copies, name):
    write = {
        ".tif": lambda path: write_tiff(path, noise),
        ".mrxs": lambda path: write_mirax(path, noise, 0.25, corner_px=(75, 139), grid=(6, 5)),
        ".dcm": lambda path: write_dicom(path, noise, 0.25),
    }
    store = tmp_path / "store"
    store.mkdir()
    path = write[Path(name).suffix](store / name)
    files = inspected(str(path), tmp_path, copies, needed_mpp=dict.fromkeys(INSPECTION.needed_mpp, 1000.0))
    assert read_json(files.record)["verdict"] == "ok"
    with Slide(info_of(path), "test") as slide:
        expected = slide.read((3, 5), (200, 150), 0.3)
    with (
        cached_slide(files.info, files.location, slides_config(replace(copies, of="all"))) as info,
        Slide(info, "test") as slide,
    ):
        assert Path(info.path).is_relative_to(tmp_path / "copies")
        store.rename(tmp_path / "gone")
        np.testing.assert_array_equal(slide.read((3, 5), (200, 150), 0.3), expected)


def test_a_slide_that_changed_after_its_inspection_is_not_used(server, tmp_path, copies, noise):
    files = inspected(f"{server.address}/2026/a%20b.tif", tmp_path, copies)
    write_tiff(tmp_path / "served/2026/a b.tif", noise[::-1])
    told = pytest.raises(ChangedSlideError, match=r"has changed since its inspection.*Remedy: run again")
    with told, cached_slide(files.info, files.location, slides_config(copies)):
        pass


def test_a_slide_that_is_gone_after_its_inspection_costs_its_job_not_its_place(server, tmp_path, copies):
    files = inspected(f"{server.address}/2026/a%20b.tif", tmp_path, copies)
    (tmp_path / "served/2026/a b.tif").unlink()
    told = pytest.raises(RemoteError, match=r"a%20b.tif is not there \(404\)")
    with told, cached_slide(files.info, files.location, slides_config(copies)):
        pass


def test_a_job_follows_no_redirect_out_of_the_roots(server, tmp_path, copies):
    address, root = f"{server.address}/2026/a%20b.tif", f"{server.address}/2026"
    files = inspected(address, tmp_path, replace(copies, roots=[root]))
    shutil.copy(tmp_path / "served/2026/a b.tif", tmp_path / "served/b.tif")
    os.utime(tmp_path / "served/b.tif", (1e9, 1e9))  # of another second, so that the copy that is there is of no use
    server.redirects["/2026/a%20b.tif"] = 302, "/b.tif"
    told = rf"{address} leads to {server.address}/b.tif, which is not in slides.roots \({root}\).*, and run again"
    slides = slides_config(replace(copies, roots=[root]))
    with pytest.raises(RemoteError, match=told), cached_slide(files.info, files.location, slides):
        pass
    assert ("GET", "/b.tif") not in server.asked
    slides["roots"].append(f"{server.address}/b.tif")
    with cached_slide(files.info, files.location, slides):
        assert ("GET", "/b.tif") in server.asked


def test_errors_name_the_address_not_the_copy(server, tmp_path, copies):
    damage(tmp_path / "served/2026/a b.tif", (0, 0))
    address = f"{server.address}/2026/a%20b.tif"
    (tmp_path / "served/2026/text.svs").write_text("no slide at all, but some text")
    refused = read_json(inspected(f"{server.address}/2026/text.svs", tmp_path, copies).record)
    assert refused["finding"].startswith(f"{server.address}/2026/text.svs is text")
    files = inspected(address, tmp_path, copies, max_unreadable_fraction=1.0)
    told = pytest.raises(SlideError, match="level 0, box")
    with (
        told as raised,
        cached_slide(files.info, files.location, slides_config(copies)) as info,
        Slide(info, "test") as slide,
    ):
        slide.read((0, 0), (64, 64), 0.25)
    assert str(tmp_path / "copies") not in str(raised.value)


def test_what_is_known_to_be_missing_is_not_asked_for(tmp_path, copies):
    planned = "absent: s3://b/a.svs is not there"
    inspect_slide(row("s3://b/a.svs"), inspection_files(tmp_path), INSPECTION, copies, planned)
    found = read_json(tmp_path / "record.json")
    assert (found["verdict"], found["finding"]) == ("quarantined", "s3://b/a.svs is not there")


def test_a_slide_that_its_server_leads_elsewhere_is_in_quarantine_with_the_remedy(tmp_path, copies):
    planned = "elsewhere: https://a/x.svs leads to https://b/x.svs, which is not in slides.roots (https://a)"
    inspect_slide(row("https://a/x.svs"), inspection_files(tmp_path), INSPECTION, copies, planned)
    found = read_json(tmp_path / "record.json")
    assert (found["verdict"], found["finding"]) == ("quarantined", planned.removeprefix("elsewhere: "))
    assert found["remedy"].startswith("add that address, its folder or its server to slides.roots if")


def test_a_slide_larger_than_all_room_is_an_error(server, tmp_path, copies):
    with pytest.raises(SettingsError, match=r"has 0.000\d+ GB, and slides.copies.most_gb is 1e-06.*Remedy: raise"):
        inspected(f"{server.address}/2026/a%20b.tif", tmp_path, replace(copies, most_gb=1e-6))


def test_a_folder_named_by_a_variable_that_is_not_set_is_an_error(server, tmp_path, copies):
    with pytest.raises(SettingsError, match=r"slides.copies.folder is \$NOT_SET/x, and this machine"):
        inspected(f"{server.address}/2026/a%20b.tif", tmp_path, replace(copies, folder="$NOT_SET/x"))


def test_a_transfer_that_breaks_off_leaves_nothing(server, tmp_path, copies):
    (tmp_path / "served/cut").mkdir()
    (tmp_path / "served/2026/a b.tif").rename(tmp_path / "served/cut/a.tif")
    with pytest.raises(RemoteError, match="cannot be fetched"):
        inspected(f"{server.address}/cut/a.tif", tmp_path, copies)
    assert [path.name for path in (tmp_path / "copies").iterdir()] == ["lock"]


def filled_with(n_bytes):
    def fill(place):
        (place / "content").write_bytes(b"x" * n_bytes)
        (place / "digest.txt").write_text("d")

    return fill


def entries(folder):
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def test_the_least_recently_used_entry_makes_room_and_nothing_else(tmp_path):
    shelf = SlideCache(tmp_path, 100)
    (tmp_path / "not ours-40").mkdir()
    for name in (*NAMES[:2], NAMES[0]):
        with shelf.entry(name, filled_with(40)):
            time.sleep(0.02)
    with shelf.entry(NAMES[2], filled_with(40)):
        assert entries(tmp_path) == [NAMES[0], NAMES[2], "not ours-40"]


def test_an_entry_in_use_stays_and_others_wait_for_room(tmp_path):
    shelf, order = SlideCache(tmp_path, 60), []

    def use_another():
        with shelf.entry(NAMES[1], filled_with(40)):
            order.append("another is used")

    with shelf.entry(NAMES[0], filled_with(40)):
        waiting = threading.Thread(target=use_another)
        waiting.start()
        time.sleep(0.5)
        assert entries(tmp_path) == [NAMES[0]]
        order.append("the first is left")
    waiting.join()
    assert order == ["the first is left", "another is used"]
    assert entries(tmp_path) == [NAMES[1]]


def test_many_in_need_of_one_entry_fill_it_once(tmp_path):
    shelf, filled = SlideCache(tmp_path, 60), []

    def fill(place):
        filled.append(place)
        time.sleep(0.3)
        filled_with(40)(place)

    def use():
        with shelf.entry(NAMES[0], fill):
            time.sleep(0.1)

    users = [threading.Thread(target=use) for _ in range(5)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert len(filled) == 1


def test_a_job_that_waits_says_so_once(tmp_path, caplog):
    caplog.set_level("INFO")
    shelf = SlideCache(tmp_path, 60)

    def use_another():
        with shelf.entry(NAMES[1], filled_with(40)):
            pass

    with shelf.entry(NAMES[0], filled_with(40)):
        waiting = threading.Thread(target=use_another)
        waiting.start()
        time.sleep(1.5)
    waiting.join()
    assert caplog.messages == [f"waiting for room in {tmp_path}, or for a job that fetches the same slide"]


def test_many_that_fail_to_fill_one_entry_get_their_own_error_and_leave_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("lesionmap.slides.cache.POLL_SECONDS", 0.001)
    shelf, errors = SlideCache(tmp_path, 60), []

    def fail(place):
        for part in range(30):
            (place / str(part)).touch()
        raise RemoteError(stage="fetch", finding="broken off", remedy="run again")

    def use():
        for _ in range(20):
            try:
                with shelf.entry(NAMES[0], fail):
                    pass
            except Exception as error:
                errors.append(type(error))

    users = [threading.Thread(target=use) for _ in range(8)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert errors == [RemoteError] * 160
    assert entries(tmp_path) == []


def test_what_a_killed_job_had_half_filled_is_filled_anew(tmp_path):
    script = f"""
import os, pathlib, signal
from lesionmap.slides.cache import SlideCache

def fill(place):
    (place / "content").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)

with SlideCache(pathlib.Path({str(tmp_path)!r}), 60).entry({NAMES[0]!r}, fill):
    pass
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3] / "scripts")}
    assert subprocess.run([sys.executable, "-c", script], env=environment, check=False).returncode == -9
    assert (tmp_path / NAMES[0] / "content").read_bytes() == b"half"
    with SlideCache(tmp_path, 60).entry(NAMES[0], filled_with(40)) as place:
        assert (place / "content").read_bytes() == b"x" * 40


def test_the_state_of_a_quarantined_slide_is_its_inspections(tmp_path, copies):
    files = inspected(str(tmp_path / "absent.svs"), tmp_path, copies)
    told = pytest.raises(SlideError, match=r"slide s1, inspect_slide: the file .*absent.svs does not exist")
    with told, cached_slide(files.info, files.location, slides_config(copies)):
        pass
