import os
import re
import ssl
import subprocess
import sys
import time
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from lesionmap.errors import RemoteError
from lesionmap.servers import remote
from lesionmap.servers.remote import CHUNK_BYTES, download, state, states
from lesionmap.servers.urls import why_unavailable
from web_server import serving


@pytest.fixture
def server(tmp_path):
    for name in ("a b.tif", "refused/a.tif", "cut/a.tif", "busy/a.tif", "frail/a.tif"):
        (tmp_path / "served" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "served" / name).write_bytes(bytes(range(256)) * 5000 + b"end")
    with serving(tmp_path / "served") as server:
        yield server


def test_a_file_comes_whole_and_its_state_changes_with_it(server, tmp_path):
    address, served = f"{server.address}/a%20b.tif", tmp_path / "served/a b.tif"
    before = state(address, None)
    assert before.startswith(f"{served.stat().st_size} ")
    assert state(address, None) == before
    download(address, tmp_path / "copy", served.stat().st_size, None)
    assert (tmp_path / "copy").read_bytes() == served.read_bytes()
    served.write_bytes(b"another")
    assert state(address, None) not in (before, "")


def test_files_that_are_gone_or_refused_are_told_apart_from_servers_that_fail(server):
    good, gone, refused = (f"{server.address}/{name}" for name in ("a%20b.tif", "gone.tif", "refused/a.tif"))
    found = states([good, gone, refused], None)
    assert why_unavailable(found[good]) is None
    remedy = "correct its path in the slide sheet, or have access granted"
    assert why_unavailable(found[gone]) == (f"{gone} is not there (404)", remedy)
    assert why_unavailable(found[refused]) == (f"access to {refused} is refused (403)", remedy)
    with pytest.raises(RemoteError, match=r"refuses every request \(1 slides, such as: .*keys") as raised:
        states([refused], None)
    assert "roots" not in str(raised.value)


def test_a_busy_server_is_asked_again(server):
    assert why_unavailable(state(f"{server.address}/busy/a.tif", None)) is None
    assert [method for method, path in server.asked if path == "/busy/a.tif"] == ["HEAD"] * 3


def test_what_breaks_off_once_goes_on_where_it_was(server, tmp_path):
    whole = bytes(range(256)) * 2**14 + b"end"  # 4 MiB, of which 2 come before it breaks off
    (tmp_path / "served/frail/a.tif").write_bytes(whole)
    download(f"{server.address}/frail/a.tif", tmp_path / "copy", len(whole), None)
    assert (tmp_path / "copy").read_bytes() == whole
    assert server.sent == [len(whole), len(whole) - 2 * CHUNK_BYTES]


def test_what_breaks_off_and_changes_meanwhile_comes_anew(server, tmp_path):
    changed = bytes(1280003)
    (tmp_path / "served/frail/a.then").write_bytes(changed)
    download(f"{server.address}/frail/a.tif", tmp_path / "copy", len(changed), None)
    assert (tmp_path / "copy").read_bytes() == changed
    assert server.sent == [len(changed), len(changed)]


def test_what_breaks_off_is_an_error(server, tmp_path):
    with pytest.raises(RemoteError, match=r"cut/a\.tif cannot be fetched .*Remedy: see that 127"):
        download(f"{server.address}/cut/a.tif", tmp_path / "copy", 1280003, None)


def test_a_file_that_has_grown_is_an_error(server, tmp_path):
    with pytest.raises(RemoteError, match="1280003 bytes arrived instead of 5"):
        download(f"{server.address}/a%20b.tif", tmp_path / "copy", 5, None)


LEADS_OUT = "add that address, its folder or its server to slides.roots"


@pytest.fixture
def other(tmp_path):
    """Another server, with a.tif (5 bytes)."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/a.tif").write_bytes(b"other")
    with serving(tmp_path / "elsewhere") as server:
        yield server


@pytest.fixture
def certificate(tmp_path):
    """Key and self-signed certificate of 127.0.0.1."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    draft = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    signed = draft.add_extension(address, critical=False).sign(key, hashes.SHA256())
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (tmp_path / "cert.pem").write_bytes(key.private_bytes(*form) + signed.public_bytes(serialization.Encoding.PEM))
    return tmp_path / "cert.pem"


def asked_with(server, header):
    return [headers[header] for headers in server.headers]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_out_of_the_roots_is_not_followed_and_one_within_is(server, other, tmp_path, status):
    address, roots = f"{server.address}/old/a.tif", [server.address, "."]
    server.redirects["/old/a.tif"] = status, f"{other.address}/a.tif?X-Amz-Signature=not-to-be-told"
    why, remedy = why_unavailable(state(address, roots))
    hop = f"{other.address}/a.tif, which is not in slides.roots ({server.address}, .)"
    assert (why, LEADS_OUT in remedy) == (f"{address} leads to {hop}", True)
    with pytest.raises(RemoteError, match=f"{re.escape(hop)}. Remedy: .*{LEADS_OUT}") as raised:
        download(address, tmp_path / "copy", 5, roots)
    assert "not-to-be-told" not in str(raised.value)
    assert other.asked == []
    assert not (tmp_path / "copy").exists()
    for allowed in (None, [*roots, other.address], [*roots, f"{other.address}/a.tif"]):
        assert state(address, allowed).startswith("5 ")
        download(address, tmp_path / "copy", 5, allowed)
        assert (tmp_path / "copy").read_bytes() == b"other"


@pytest.mark.parametrize("place", ["{server}/new/a.tif?sig=1", "/new/a.tif", "../new/a.tif", "//{name}/new/a.tif"])
def test_a_redirect_within_a_root_is_followed_however_it_is_written(server, tmp_path, place):
    (tmp_path / "served/new").mkdir()
    (tmp_path / "served/new/a.tif").write_bytes(b"here")
    name = server.address.removeprefix("http://")
    server.redirects["/old/a.tif"] = 302, place.format(server=server.address, name=name)
    address, roots = f"{server.address}/old/a.tif", [f"{server.address}/old", f"{server.address}/new/"]
    assert state(address, roots).startswith("4 ")
    download(address, tmp_path / "copy", 4, roots)
    assert (tmp_path / "copy").read_bytes() == b"here"
    assert why_unavailable(state(address, roots[:1])) is not None


def test_every_hop_is_seen_to_not_only_the_last(server, other):
    server.redirects["/a.tif"] = 302, "/b.tif"
    server.redirects["/b.tif"] = 302, f"{other.address}/back"
    other.redirects["/back"] = 302, f"{server.address}/a%20b.tif"
    found = state(f"{server.address}/a.tif", [server.address])
    assert found.startswith(f"elsewhere: {server.address}/a.tif leads to {other.address}/back, which is not in ")
    assert other.asked == []
    assert state(f"{server.address}/a.tif", [server.address, other.address]).startswith("1280003 ")


@pytest.mark.parametrize(
    "place",
    [
        "http://127.0.0.1:{port}.evil.example/a.tif",
        "http://127.0.0.1.evil.example:{port}/a.tif",
        "http://127.0.0.1:{port}@localhost:{port}/slides/a.tif",
        "http://localhost:{port}/slides/a.tif",
        "http://127.0.0.1:9/slides/a.tif",
        "//localhost:{port}/slides/a.tif",
        "/elsewhere/a.tif",
        "../a.tif",
        "/slides/../a.tif",
        "/slides/%2e%2e/a.tif",
        "/slides/%252e%252e/a.tif",
        "/slides/..\\a.tif",
        "https://127.0.0.1:{port}/slides/a.tif",
        "file:///etc/hostname",
        "s3://127.0.0.1:{port}/slides/a.tif",
        "ftp://127.0.0.1:{port}/slides/a.tif",
    ],
)
def test_a_redirect_to_what_only_resembles_a_root_is_not_followed(server, tmp_path, place):
    address, roots = f"{server.address}/slides/a.tif", [f"{server.address}/slides"]
    server.redirects["/slides/a.tif"] = 302, place.format(port=server.server_port)
    assert state(address, roots).startswith(f"elsewhere: {address} leads to ")
    with pytest.raises(RemoteError, match=r"slides/a\.tif leads to .*which is not (in slides\.roots|on a web server)"):
        download(address, tmp_path / "copy", 5, roots)
    assert server.asked == [("HEAD", "/slides/a.tif"), ("GET", "/slides/a.tif")]


def test_a_redirect_is_followed_to_web_servers_only_whatever_the_roots(server, tmp_path):
    server.redirects["/a.tif"] = 302, f"file://{tmp_path}/served/a%20b.tif"
    assert "which is not on a web server" in state(f"{server.address}/a.tif", None)
    server.redirects["/a.tif"] = 302, "http://[nowhere"
    with pytest.raises(RemoteError, match=r"/a.tif cannot be fetched \("):
        state(f"{server.address}/a.tif", None)


def test_what_breaks_off_does_not_go_on_outside_the_roots(server, other, tmp_path):
    address, whole = f"{server.address}/frail/a.tif", bytes(range(256)) * 2**14 + b"end"
    (tmp_path / "served/frail/a.tif").write_bytes(whole)
    server.redirects_later["/frail/a.tif"] = 307, f"{other.address}/a.tif"
    with pytest.raises(RemoteError, match=rf"{address} leads to {other.address}/a.tif, which"):
        download(address, tmp_path / "copy", len(whole), [server.address])
    assert other.asked == []
    assert asked_with(server, "Range") == [None, f"bytes={2 * CHUNK_BYTES}-"]


def test_the_rest_of_what_broke_off_comes_through_a_redirect_within_the_roots(server, tmp_path):
    whole = bytes(range(256)) * 2**14 + b"end"
    (tmp_path / "served/frail/a.tif").write_bytes(whole)
    server.redirects["/a.tif"] = 302, "/frail/a.tif"
    download(f"{server.address}/a.tif", tmp_path / "copy", len(whole), [server.address])
    assert (tmp_path / "copy").read_bytes() == whole
    assert server.sent == [len(whole), len(whole) - 2 * CHUNK_BYTES]


def test_a_server_that_does_not_know_head_leads_nowhere_else_by_get(server, other):
    server.redirects["/only-get/a.tif"] = 302, f"{other.address}/a.tif"
    assert state(f"{server.address}/only-get/a.tif", [server.address]).startswith("elsewhere: ")
    assert [method for method, _ in server.asked] == ["HEAD", "GET"]
    assert other.asked == []


def test_redirects_without_end_cost_only_their_slide(server):
    loop = f"{server.address}/loop.tif"
    server.redirects["/loop.tif"] = 302, "/loop.tif"
    found = states([loop, f"{server.address}/a%20b.tif"], [server.address])
    assert found[loop] == f"refused: {loop} leads from one address to the next, more than 10 times"
    assert len(server.asked) == 12


def test_a_server_that_leads_all_slides_out_of_the_roots_stops_the_run(server, other):
    addresses = [f"{server.address}/{n}.tif" for n in range(3)]
    server.redirects = {f"/{n}.tif": (302, f"{other.address}/login?token=not-to-be-told") for n in range(3)}
    with pytest.raises(
        RemoteError, match=rf"refuses every request \(3 slides, .*/login, which .*{LEADS_OUT}"
    ) as raised:
        states(addresses, [server.address])
    assert "not-to-be-told" not in str(raised.value)
    found = states([*addresses, f"{server.address}/a%20b.tif"], [server.address])
    assert [why_unavailable(found[address]) is None for address in found] == [False, False, False, True]


def test_signatures_of_addresses_that_cannot_be_reached_are_not_told(server):
    server.redirects["/a.tif"] = 302, "http://127.0.0.1:9/key?X-Amz-Signature=not-to-be-told"
    with pytest.raises(RemoteError, match=r"/a\.tif cannot be fetched .*/key\?… ") as raised:
        state(f"{server.address}/a.tif", None)
    assert "not-to-be-told" not in str(raised.value)


def test_a_password_goes_to_no_other_host(server, other, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1\nlogin me\npassword not-to-be-told\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    elsewhere = other.address.replace("127.0.0.1", "localhost")
    server.redirects["/a.tif"] = 302, f"{elsewhere}/a.tif"
    for roots in (None, [server.address, elsewhere]):
        assert state(f"{server.address}/a.tif", roots).startswith("5 ")
        download(f"{server.address}/a.tif", tmp_path / "copy", 5, roots)
    basic = "Basic " + b64encode(b"me:not-to-be-told").decode()
    assert asked_with(server, "Authorization") == [basic] * 4
    assert asked_with(other, "Authorization") == [None] * 4


def test_a_redirect_from_https_to_http_is_not_followed(other, tmp_path, certificate, monkeypatch):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with serving(tmp_path / "elsewhere", tls) as server:
        address = f"{server.address}/b.tif"
        for hop in (other.address, server.address.replace("https", "http")):
            server.redirects["/b.tif"] = 302, f"{hop}/a.tif"
            found = state(address, [server.address, other.address.replace("http", "https")])
            assert found.startswith(f"elsewhere: {address} leads to {hop}/a.tif, which")
        assert other.asked == []
        server.redirects["/b.tif"] = 302, "/a.tif"
        assert state(address, [server.address]).startswith("5 ")


def test_storage_leads_nowhere(server, other, monkeypatch):
    for name, value in {"ACCESS_KEY_ID": "k", "SECRET_ACCESS_KEY": "s", "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.address)
    remote._s3_client.cache_clear()
    for status in (301, 302, 307, 308):
        server.redirects[f"/bucket/{status}.tif"] = status, f"{other.address}/a.tif"
        with pytest.raises(RemoteError, match=rf"s3://bucket/{status}.tif cannot be (checked|fetched)"):
            state(f"s3://bucket/{status}.tif", ["s3://bucket"])
        assert ("HEAD", f"/bucket/{status}.tif") in server.asked
    assert other.asked == []
    remote._s3_client.cache_clear()


def test_one_refused_slide_among_others_is_refused_and_all_of_them_are_an_error(server):
    refused, another = (f"{server.address}/refused/{name}.tif" for name in "ab")
    assert states([refused], None, [refused, f"{server.address}/a%20b.tif"])[refused].startswith("refused: ")
    assert states([refused], None, [refused, f"{server.address}/gone.tif"])[refused].startswith("refused: ")
    with pytest.raises(RemoteError, match="refuses every request"):
        states([refused], None, [refused, another, "http://127.0.0.1:9/elsewhere.tif"])


def test_a_few_of_many_others_are_asked_for_where_a_slide_is_refused(server):
    others = [f"{server.address}/refused/{n}.tif" for n in range(1000)]
    with pytest.raises(RemoteError, match="refuses every request"):
        states(others[:1], None, others)
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
        states((f"http://127.0.0.1:9/{n}.tif" for n in range(500)), None)
    assert time.monotonic() - start < 40
