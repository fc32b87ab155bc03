"""Check and parse addresses of slides on servers, without contacting the servers."""

import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, unquote_to_bytes, urlsplit

S3, WEB = "s3", ("http", "https")
PORTS = {"http": 80, "https": 443}
ABSENT, REFUSED, ELSEWHERE = "absent", "refused", "elsewhere"
CORRECT = "correct its path in the slide sheet"
ADD = "add that address, its folder or its server to slides.roots"
REMEDIES = dict.fromkeys((ABSENT, REFUSED), f"{CORRECT}, or have access granted")
REMEDIES |= {ELSEWHERE: f"{ADD} if slides may come from there, else {CORRECT}"}
OF_SEVERAL_FILES = (".mrxs", ".vms", ".vmu", ".dcm")
# A part ".." of a path, also before the ";", "?" or NUL at which some servers end a part.
UPWARDS = re.compile(r"(?:^|[/\\])\s*\.\.\s*(?:$|[/\\;?#\0])")
USER = re.compile(r"(?<=//)[^/?#]*@")


def is_remote(path: str) -> bool:
    """Whether `path` is an address on a server, not a local file."""
    return path.lower().startswith(tuple(f"{scheme}://" for scheme in (S3, *WEB)))


def why_unfit(address: str) -> str | None:
    """Why an address cannot be used in a slide sheet; None if it can."""
    try:
        parts = urlsplit(address)
    except ValueError as error:
        return f"is no address ({error}); write s3://bucket/key or https://server/path"
    if not parts.hostname or not parts.path.strip("/"):
        return "names no file; write s3://bucket/key or https://server/path"
    if "@" in parts.netloc or parts.query or parts.fragment:
        return "holds a user or a query; keys belong in the environment (AWS_…) or ~/.netrc, not in a sheet"
    if Path(parts.path).suffix.lower() in OF_SEVERAL_FILES:
        return "is of a format that spreads over several files; copy such slides to a folder of your own"
    return None


def without_secrets(address: str) -> str:
    """The address as messages may show it, without user, password and query (it may hold a signature)."""
    return re.split(r"[?#]", USER.sub("", address), maxsplit=1)[0]


def leads_up(address: str) -> bool:
    """Whether the path has a part ``..``, however often it is encoded: some servers decode more than once."""
    path = urlsplit(address).path
    while (decoded := unquote(path)) != path:
        path = decoded
    return bool(UPWARDS.search(path))


def lies_in(address: str, roots: Sequence[str]) -> bool:
    """Whether an address is one of the `roots` or lies below one, in whatever way both are written.

    False if the address leads up or holds a user: programs differ in where they take such an address to lead.
    """
    return any(_lies_below(address, root) for root in roots)


def _lies_below(address: str, root: str) -> bool:
    try:
        (server, path), (other, folder) = _place(address), _place(root)
    except ValueError:
        return False
    return server == other and path[: len(folder)] == folder and not leads_up(address)


def _place(address: str) -> tuple[tuple[str, str, int | None], list[bytes]]:
    """Scheme, host and port of an address, and the parts of its path.

    Raises
    ------
    ValueError
        If it is no address of a server, or programs differ in where it leads.
    """
    parts = urlsplit(address)
    if not parts.hostname or set(parts.netloc) & set("@\\"):
        raise ValueError(address)
    path = parts.path.rstrip("/")
    if parts.scheme == S3:  # keys are not encoded
        return (S3, parts.netloc, None), path.encode().split(b"/")
    server = parts.scheme, parts.hostname.encode("idna").decode(), parts.port or PORTS.get(parts.scheme)
    return server, [name for name in map(unquote_to_bytes, path.split("/")) if name != b"."]


def why_elsewhere(address: str, roots: Sequence[str] | None) -> str | None:
    """Why a server's redirect must not be followed to an address, which is named without secrets; None if it may be.

    Parameters
    ----------
    roots : sequence of str or None
        The config's ``slides.roots``; None: any address may be followed.
    """
    if urlsplit(address).scheme not in WEB:
        return f"{without_secrets(address)}, which is not on a web server"
    if roots is not None and not lies_in(address, roots):
        return f"{without_secrets(address)}, which is not in slides.roots ({', '.join(roots)})"
    return None


def file_name(path: str) -> str:
    """The last part of a path or an address."""
    return Path(unquote(urlsplit(path).path) if is_remote(path) else path).name


def why_unavailable(state: str) -> tuple[str, str] | None:
    """Why a remote file is unavailable, and the remedy, by its state (:func:`lesionmap.servers.remote.states`)."""
    kind, _, why = state.partition(": ")
    return (why, REMEDIES[kind]) if kind in REMEDIES else None


def n_bytes(state: str) -> int:
    """Size in bytes, from the state of a file that is there."""
    return int(state.split()[0])
