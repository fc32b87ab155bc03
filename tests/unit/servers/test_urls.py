import pytest
from lesionmap.servers.urls import file_name, is_remote, leads_up, lies_in, why_elsewhere, why_unfit, without_secrets


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("s3://a/b.svs", True),
        ("https://a/b", True),
        ("http://a/b", True),
        ("s3/a", False),
        ("/a/s3://b", False),
        ("HTTPS://A/b", True),
    ],
)
def test_addresses_are_told_from_files(path, expected):
    assert is_remote(path) is expected


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("s3://bucket/a.svs", None),
        ("https://server/slides/a%20b.svs", None),
        ("https://[server/a.svs", "is no address"),
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


ROOT = "https://server.example/slides"


@pytest.mark.parametrize(
    ("address", "root"),
    [
        ("https://server.example/slides/a.svs", ROOT),
        ("https://server.example/slides/a.svs", "https://server.example/slides/a.svs"),
        ("https://server.example/slides/deep/2026/a.svs?X-Amz-Signature=a/../b", ROOT),
        ("HTTPS://SERVER.example:443/slides/a.svs", ROOT),
        ("http://server.example/slides/a.svs", "http://server.example:80"),
        ("https://server.example:8443/a.svs", "https://Server.Example:8443/"),
        ("https://server.example/%73lides/a.svs", f"{ROOT}/"),
        ("https://server.example/./slides/./a.svs", ROOT),
        ("https://server.example/m%C3%A4rz%202026/a.svs", "https://server.example/märz 2026"),
        ("https://xn--srver-bsa.example/a.svs", "https://sérver.example"),
        ("https://[::1]:8443/a.svs", "https://[::1]:8443/"),
        ("https://server.example/slides/..a/a...svs", ROOT),
        ("https://server.example/slides/a%2fb.svs", ROOT),
        ("https://server.example/slides/100%.svs", ROOT),
        ("s3://bucket/2026/a.svs", "s3://bucket/"),
        ("s3://bucket/2026/100% \\ a%2fb;c#d e.svs", "s3://bucket/2026"),
        ("s3://bucket//a.svs", "s3://bucket"),
    ],
)
def test_an_address_in_a_root_may_be_written_in_many_ways(address, root):
    assert lies_in(address, ["slides", root])
    assert why_elsewhere(address, [root]) is None or address.startswith("s3://")


@pytest.mark.parametrize(
    "address",
    [
        "http://server.example/slides/a.svs",
        "https://server.example:444/slides/a.svs",
        "https://server.example.evil/slides/a.svs",
        "https://evil.example/slides/a.svs",
        "https://sub.server.example/slides/a.svs",
        "https://server.example@evil/slides/a.svs",
        "https://user:key@server.example/slides/a.svs",
        "https://evil\\@server.example/slides/a.svs",
        "https://server.example\\.evil/slides/a.svs",
        "https://server.example:port/slides/a.svs",
        "https://[server.example/slides/a.svs",
        "https://server.example/slides_2/a.svs",
        "https://server.example/Slides/a.svs",
        "https://server.example/a.svs",
        "https://server.example//slides/a.svs",
        "https://server.example/sl%69de%E4/a.svs",
        "https://server.example/",
        "https:///slides/a.svs",
        "//server.example/slides/a.svs",
        "s3://server.example/slides/a.svs",
        "file:///slides/a.svs",
        "slides/a.svs",
    ],
)
def test_an_address_that_only_resembles_a_root_lies_outside(address):
    assert not lies_in(address, [ROOT])
    assert not lies_in(address, ["slides", "https://server.example/slide%F6", "https://[", ROOT])


@pytest.mark.parametrize(("root", "address"), [("s3://Bucket", "s3://bucket/a"), ("s3://b/a%20b", "s3://b/a b/c")])
def test_buckets_and_keys_are_compared_as_they_are(root, address):
    assert not lies_in(address, [root])


DOTS = ["..", "%2e%2e", ".%2E", "%252e%252e", "%25252e.", "%2525252e%25252e", "x%2f..", "..%5cx", "x%255C..", "..;x=1"]


@pytest.mark.parametrize("dots", [*DOTS, "%2e%2e%3b", "x\\..", " ..", "..%20", "..%00", "x%252f%2e%2e%252fy"])
@pytest.mark.parametrize("server", ["https://server.example/slides", "s3://bucket"])
def test_a_way_up_is_found_however_often_it_is_encoded(server, dots):
    for address in (f"{server}/{dots}/a.svs", f"{server}/deep/{dots}"):
        assert leads_up(address)
        assert not lies_in(address, [server])


@pytest.mark.parametrize("name", ["...", "..a", "a..", "a%2e%2e", "%2e", "a..%2fb", "..%2525", "%252e%252ea"])
def test_other_dots_lead_nowhere(name):
    assert not leads_up(f"https://server.example/slides/{name}/a.svs")
    assert lies_in(f"s3://bucket/{name}/a.svs", ["s3://bucket"])


def test_where_a_redirect_must_not_lead_is_named_without_secrets():
    named = "https://other.example/k/a.svs, which is not in slides.roots (., https://server.example/slides)"
    assert why_elsewhere("https://me:key@other.example/k/a.svs?sig=key#key", [".", ROOT]) == named
    assert why_elsewhere("https://other.example/k/a.svs", None) is None
    assert why_elsewhere("file:///etc/passwd", None) == "file:///etc/passwd, which is not on a web server"
    assert why_elsewhere("s3://bucket/a.svs", ["s3://bucket"]) == "s3://bucket/a.svs, which is not on a web server"


def test_an_address_is_shown_without_user_and_query():
    assert (
        without_secrets("https://me:key@server.example:8443/a@b.svs?sig=key#key")
        == "https://server.example:8443/a@b.svs"
    )
    assert without_secrets("s3://bucket/a@b.svs") == "s3://bucket/a@b.svs"
