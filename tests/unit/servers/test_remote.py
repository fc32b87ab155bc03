import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from lesionmap.errors import RemoteError
from lesionmap.servers.remote import CHUNK_BYTES, download, state, states
from lesionmap.servers.urls import file_name, is_remote, why_unavailable, why_unfit
from web_server import serving


@pytest.fixture
def server(tmp_path):
    for name in ("a b.tif", "refused/a.tif", "cut/a.tif", "busy/a.tif", "frail/a.tif"):
        (tmp_path / "served" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "served" / name).write_bytes(bytes(range(256)) * 5000 + b"end")
    with serving(tmp_path / "served") as server:
        yield server


@pytest.mark.parametrize(
    ("path", "expected"),
    [("s3://a/b.svs", True), ("https://a/b", True), ("http://a/b", True), ("s3/a", False), ("/a/s3://b", False)],
)
def test_addresses_are_told_from_files(path, expected):
    assert is_remote(path) is expected


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("s3://bucket/a.svs", None),
        ("https://server/slides/a%20b.svs", None),
        ("s3://bucket", "names no file"),
        ("https://server/", "names no file"),
        ("https://me:secret@server/a.svs", "holds a user or a query"),
        ("https://:secret@server/a.svs", "holds a user or a query"),
        ("https://server/a.svs?X-Amz-Signature=1", "holds a user or a query"),
        ("s3://bucket/a.mrxs", "spreads over several files"),
        ("s3://bucket/a.DCM", "spreads over several files"),
    ],
)
def test_an_address_that_cannot_be_served_is_refused(address, problem):
    found = why_unfit(address)
    assert found is None if problem is None else problem in found


def test_the_name_of_a_file_is_that_on_the_server():
    assert file_name("https://server/x/a%20b.svs") == "a b.svs"
    assert file_name("/x/a%20b.svs") == "a%20b.svs"


def test_a_file_comes_whole_and_its_state_changes_with_it(server, tmp_path):
    address, served = f"{server.address}/a%20b.tif", tmp_path / "served/a b.tif"
    before = state(address)
    assert before.startswith(f"{served.stat().st_size} ")
    assert state(address) == before
    download(address, tmp_path / "copy", served.stat().st_size)
    assert (tmp_path / "copy").read_bytes() == served.read_bytes()
    served.write_bytes(b"another")
    assert state(address) not in (before, "")


def test_files_that_are_gone_or_refused_are_told_apart_from_servers_that_fail(server):
    good, gone, refused = (f"{server.address}/{name}" for name in ("a%20b.tif", "gone.tif", "refused/a.tif"))
    found = states([good, gone, refused])
    assert why_unavailable(found[good]) is None
    assert why_unavailable(found[gone]) == f"{gone} is not there (404)"
    assert why_unavailable(found[refused]) == f"access to {refused} is refused (403)"
    with pytest.raises(RemoteError, match=r"refuses every request \(1 slides, such as .*keys"):
        states([refused])


def test_a_busy_server_is_asked_again(server):
    assert why_unavailable(state(f"{server.address}/busy/a.tif")) is None
    assert [method for method, path in server.asked if path == "/busy/a.tif"] == ["HEAD"] * 3


def test_what_breaks_off_once_goes_on_where_it_was(server, tmp_path):
    whole = bytes(range(256)) * 2**14 + b"end"  # 4 MiB, of which 2 come before it breaks off
    (tmp_path / "served/frail/a.tif").write_bytes(whole)
    download(f"{server.address}/frail/a.tif", tmp_path / "copy", len(whole))
    assert (tmp_path / "copy").read_bytes() == whole
    assert server.sent == [len(whole), len(whole) - 2 * CHUNK_BYTES]


def test_what_breaks_off_and_changes_meanwhile_comes_anew(server, tmp_path):
    changed = bytes(1280003)
    (tmp_path / "served/frail/a.then").write_bytes(changed)
    download(f"{server.address}/frail/a.tif", tmp_path / "copy", len(changed))
    assert (tmp_path / "copy").read_bytes() == changed
    assert server.sent == [len(changed), len(changed)]


def test_what_breaks_off_is_an_error(server, tmp_path):
    with pytest.raises(RemoteError, match=r"cut/a\.tif cannot be fetched .*Remedy: see that 127"):
        download(f"{server.address}/cut/a.tif", tmp_path / "copy", 1280003)


def test_a_file_that_has_grown_is_an_error(server, tmp_path):
    with pytest.raises(RemoteError, match="1280003 bytes arrived instead of 5"):
        download(f"{server.address}/a%20b.tif", tmp_path / "copy", 5)


def test_signatures_of_addresses_that_a_server_leads_to_are_not_told(server):
    with pytest.raises(RemoteError, match=r"moved/a\.tif cannot be fetched .*/key\?… ") as raised:
        state(f"{server.address}/moved/a.tif")
    assert "not-to-be-told" not in str(raised.value)


def test_one_refused_slide_among_others_is_refused_and_all_of_them_are_an_error(server):
    refused, another = (f"{server.address}/refused/{name}.tif" for name in "ab")
    assert states([refused], [refused, f"{server.address}/a%20b.tif"])[refused].startswith("refused: ")
    assert states([refused], [refused, f"{server.address}/gone.tif"])[refused].startswith("refused: ")
    with pytest.raises(RemoteError, match="refuses every request"):
        states([refused], [refused, another, "http://127.0.0.1:9/elsewhere.tif"])


def test_a_few_of_many_others_are_asked_for_where_a_slide_is_refused(server):
    others = [f"{server.address}/refused/{n}.tif" for n in range(1000)]
    with pytest.raises(RemoteError, match="refuses every request"):
        states(others[:1], others)
    assert len(server.asked) == 21


def test_sheets_without_servers_do_not_load_their_libraries():
    loaded = "'lesionmap.servers.remote' in sys.modules"
    code = f"import sys, lesionmap.slides.cache, lesionmap.run.doctor; sys.exit({loaded})"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3] / "scripts")}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


def test_a_server_that_is_not_there_is_an_error_at_once():
    start = time.monotonic()
    with pytest.raises(
        RemoteError, match=r"http://127.0.0.1:9/\d+.tif cannot be fetched .*Remedy: see that 127.0.0.1:9"
    ):
        states(f"http://127.0.0.1:9/{n}.tif" for n in range(500))
    assert time.monotonic() - start < 40
