import time

import pytest
from lesionmap.addresses import file_name, is_remote, why_not_to_be_had, why_unfit
from lesionmap.errors import RemoteError
from lesionmap.remote import download, state, states
from web_server import serving


@pytest.fixture
def server(tmp_path):
    for name in ("a b.tif", "refused/a.tif", "cut/a.tif", "busy/a.tif"):
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
    assert why_not_to_be_had(found[good]) is None
    assert why_not_to_be_had(found[gone]) == f"{gone} is not there (404)"
    assert why_not_to_be_had(found[refused]) == f"access to {refused} is refused (403)"
    with pytest.raises(RemoteError, match=r"refuses all that is asked of it, 1 slides such as .*keys"):
        states([refused])


def test_a_busy_server_is_asked_again(server):
    assert why_not_to_be_had(state(f"{server.address}/busy/a.tif")) is None
    assert [method for method, path in server.asked if path == "/busy/a.tif"] == ["HEAD"] * 3


def test_what_breaks_off_is_an_error(server, tmp_path):
    with pytest.raises(RemoteError, match=r"cut/a\.tif cannot be fetched .*Remedy: see that 127"):
        download(f"{server.address}/cut/a.tif", tmp_path / "copy", 1280003)


def test_a_file_that_has_grown_is_an_error(server, tmp_path):
    with pytest.raises(RemoteError, match="1280003 bytes came, not 5"):
        download(f"{server.address}/a%20b.tif", tmp_path / "copy", 5)


def test_a_server_that_is_not_there_is_an_error_at_once():
    start = time.monotonic()
    with pytest.raises(
        RemoteError, match=r"http://127.0.0.1:9/\d+.tif cannot be fetched .*Remedy: see that 127.0.0.1:9"
    ):
        states(f"http://127.0.0.1:9/{n}.tif" for n in range(500))
    assert time.monotonic() - start < 40
