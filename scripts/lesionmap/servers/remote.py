"""Check and download slides on S3-compatible storage and on web servers."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import SplitResult, urlsplit

import boto3
import requests
from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError
from urllib3.util import Retry

from lesionmap.errors import RemoteError
from lesionmap.jobs.parallel import map_in_order
from lesionmap.servers.urls import ABSENT, ELSEWHERE, REFUSED, REMEDIES, S3, WEB, why_elsewhere

STAGE = "fetch"
NOT_GIVEN = (REFUSED, ELSEWHERE)
AT_ONCE = 32
SAMPLE = 20
TRIES = 3
CONNECT_S, READ_TIMEOUT_S = 10, 60
PARTIAL = 206
MOST_REDIRECTS = 10
BUSY = (408, 429, 500, 502, 503, 504)
CHUNK_BYTES = 2**20
# ValueError: a server redirects to what is no address.
SERVER_ERRORS = (BotoCoreError, Boto3Error, ClientError, requests.RequestException, HTTPError, ValueError)
SIGNATURE = re.compile(r"\?\S+")  # the query of an address that a server redirected to, which may hold a signature


def states(addresses: Iterable[str], roots: Sequence[str] | None, beside: Sequence[str] = ()) -> dict[str, str]:
    """State of each remote file: its size and version, which change only with the file, or why it is unavailable.

    Parameters
    ----------
    roots : sequence of str or None
        The config's ``slides.roots``: where redirects may lead to; None: anywhere.
    beside : sequence of str
        More addresses on the same servers. If a server refuses all of `addresses`, a sample of these is tried as well.

    Raises
    ------
    RemoteError
        If a server cannot be reached, fails, or refuses every request: that says nothing about single files.
    """
    asked = list(addresses)
    # If a server is down, the first error ends the query for all addresses.
    found = dict(zip(asked, map_in_order(partial(state, roots=roots), asked, AT_ONCE), strict=True))
    by_server = defaultdict(list)
    for address in asked:
        by_server[urlsplit(address).netloc].append(address)
    for server, theirs in by_server.items():
        if all(found[address].startswith(NOT_GIVEN) for address in theirs) and _refuses(server, beside, roots):
            raise _refusing(server, [found[address] for address in theirs])
    return found


def _refuses(server: str, addresses: Sequence[str], roots: Sequence[str] | None) -> bool:
    """Whether a server refuses every request for a sample of those `addresses` that it hosts."""
    theirs = [address for address in addresses if urlsplit(address).netloc == server]
    sample = theirs[:: math.ceil(len(theirs) / SAMPLE) or 1]
    return all(state(address, roots).startswith(NOT_GIVEN) for address in sample)


def _refusing(server: str, found: Sequence[str]) -> RemoteError:
    """The error that a server refuses every request, by the states of all its files."""
    why = found[0].partition(": ")[2]
    keys = "see that your keys (AWS_… or ~/.netrc) are set and have not expired"
    remedy = f"{keys}, or {REMEDIES[ELSEWHERE]}" if any(one.startswith(ELSEWHERE) for one in found) else keys
    finding = f"{server} refuses every request ({len(found)} slides, such as: {why})"
    return RemoteError(stage=STAGE, finding=finding, remedy=remedy)


def state(address: str, roots: Sequence[str] | None) -> str:
    """State of one file, as in :func:`states`."""
    with _naming_server_errors(address):
        try:
            return _remote_file(address, roots).state()
        except _ElsewhereError as error:
            return f"{ELSEWHERE}: {address} leads to {error}"
        except requests.TooManyRedirects:
            return f"{REFUSED}: {address} leads from one address to the next, more than {MOST_REDIRECTS} times"
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        except requests.HTTPError as error:
            status = error.response.status_code if error.response is not None else 0
        if status in (404, 410):
            return f"{ABSENT}: {address} is not there ({status})"
        if status in (401, 403):
            return f"{REFUSED}: access to {address} is refused ({status})"
        raise RemoteError(
            stage=STAGE,
            finding=f"{address} cannot be checked: the server answers {status}",
            remedy="run again; if that persists, ask whoever runs that server",
        )


def download(address: str, target: Path, size: int, roots: Sequence[str] | None) -> None:
    """Download a file to `target`.

    Raises
    ------
    RemoteError
        If the download fails, is led out of the `roots` (see :func:`states`), or does not give `size` bytes.
    """
    with _naming_server_errors(address):
        _remote_file(address, roots).download(target)
    if target.stat().st_size != size:
        raise RemoteError(
            stage=STAGE,
            finding=f"of {address}, {target.stat().st_size} bytes arrived instead of {size}",
            remedy="run again; if that persists, see whether the file is being written to",
        )


@contextmanager
def _naming_server_errors(address: str) -> Iterator[None]:
    """Raise the libraries' errors about an unreachable server as RemoteError."""
    try:
        yield
    except _ElsewhereError as error:
        raise RemoteError(stage=STAGE, finding=f"{address} leads to {error}", remedy=REMEDIES[ELSEWHERE]) from error
    except SERVER_ERRORS as error:
        server = urlsplit(address).netloc
        raise RemoteError(
            stage=STAGE,
            finding=f"{address} cannot be fetched ({type(error).__name__}: {SIGNATURE.sub('?…', str(error))})",
            remedy=f"see that {server} can be reached from here, and that keys and endpoint (AWS_…) are set; run again",
        ) from error


class _RemoteFile(Protocol):
    def state(self) -> str: ...

    def download(self, target: Path) -> None: ...


def _remote_file(address: str, roots: Sequence[str] | None) -> _RemoteFile:
    parts = urlsplit(address)
    if parts.scheme == S3:
        return _S3File(parts)
    return _WebFile(address, _session(None if roots is None else tuple(roots)))


class _S3File:
    """``s3://bucket/key``; boto3 takes endpoint, region and keys from AWS_… in the environment, or from ~/.aws.

    It never follows a redirect.
    """

    def __init__(self, parts: SplitResult) -> None:
        self._place = {"Bucket": parts.netloc, "Key": parts.path.lstrip("/")}

    def state(self) -> str:
        head = _s3_client().head_object(**self._place)
        return f"{head['ContentLength']} {head['ETag']}"

    def download(self, target: Path) -> None:
        _s3_client().download_file(**self._place, Filename=str(target))


class _WebFile:
    """``https://server/path``; requests takes user and password from ~/.netrc."""

    def __init__(self, address: str, session: requests.Session) -> None:
        self._address, self._session = address, session

    def state(self) -> str:
        answer = self._session.head(self._address, allow_redirects=True, timeout=(CONNECT_S, READ_TIMEOUT_S))
        if answer.status_code in (405, 501):  # a server that does not know HEAD
            answer = self._got()
            answer.close()
        answer.raise_for_status()
        if "Content-Length" not in answer.headers:
            raise RemoteError(
                stage=STAGE,
                finding=f"the server does not say how large {self._address} is",
                remedy="copy the slide to a folder of your own, or put it on a server of files",
            )
        return f"{answer.headers['Content-Length']} {_version(answer)}"

    def download(self, target: Path) -> None:
        """Download; if it breaks off, resume there if the server can and the file is unchanged, else start again."""
        rest: dict[str, str] = {}
        for tries_left in reversed(range(TRIES)):
            with self._got(rest) as answer, open(target, "ab" if answer.status_code == PARTIAL else "wb") as stream:
                answer.raise_for_status()
                try:
                    stream.writelines(answer.iter_content(CHUNK_BYTES))
                    return
                except requests.RequestException:
                    if not tries_left:
                        raise
                if version := _version(answer):
                    rest = {"Range": f"bytes={stream.tell()}-", "If-Range": version}

    def _got(self, rest: Mapping[str, str] | None = None) -> requests.Response:
        return self._session.get(self._address, headers=rest, stream=True, timeout=(CONNECT_S, READ_TIMEOUT_S))


def _version(answer: requests.Response) -> str:
    return str(answer.headers.get("ETag") or answer.headers.get("Last-Modified", ""))


@cache
def _s3_client() -> Any:
    retries = {"max_attempts": TRIES, "mode": "standard"}
    timeouts = {"connect_timeout": CONNECT_S, "read_timeout": READ_TIMEOUT_S}
    return boto3.client("s3", config=Config(retries=retries, max_pool_connections=AT_ONCE, **timeouts))


class _ElsewhereError(requests.exceptions.InvalidURL):
    """An address that a redirect leads to must not be asked."""


class _WithinRoots(HTTPAdapter):
    """Sees before each request, also that of a redirect, that its address may be asked."""

    def __init__(self, roots: Sequence[str] | None, **settings: Any) -> None:
        super().__init__(**settings)
        self._roots = roots

    def send(self, request: requests.PreparedRequest, *settings: Any, **more: Any) -> requests.Response:
        if why := why_elsewhere(request.url or "", self._roots):
            raise _ElsewhereError(why)
        return super().send(request, *settings, **more)


@cache
def _session(roots: tuple[str, ...] | None) -> requests.Session:
    session = requests.Session()
    session.max_redirects = MOST_REDIRECTS
    session.headers["Accept-Encoding"] = "identity"  # uncompressed, so that the bytes received add up to the size
    retries = Retry(TRIES, backoff_factor=1, status_forcelist=BUSY, raise_on_status=False)
    for beginning in ("", *(f"{scheme}://" for scheme in WEB)):
        session.mount(beginning, _WithinRoots(roots, pool_maxsize=AT_ONCE, max_retries=retries))
    return session
