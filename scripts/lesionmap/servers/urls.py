"""Check and parse addresses of slides on servers, without contacting the servers."""

from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

S3, WEB = "s3", ("http", "https")
ABSENT, REFUSED = "absent", "refused"
OF_SEVERAL_FILES = (".mrxs", ".vms", ".vmu", ".dcm")


def is_remote(path: str) -> bool:
    """Whether `path` is an address on a server, not a local file."""
    return path.startswith(tuple(f"{scheme}://" for scheme in (S3, *WEB)))


def why_unfit(address: str) -> str | None:
    """Why an address cannot be used in a slide sheet; None if it can."""
    parts = urlsplit(address)
    if not parts.hostname or not parts.path.strip("/"):
        return "names no file; write s3://bucket/key or https://server/path"
    if "@" in parts.netloc or parts.query or parts.fragment:
        return "holds a user or a query; keys belong in the environment (AWS_…) or ~/.netrc, not in a sheet"
    if Path(parts.path).suffix.lower() in OF_SEVERAL_FILES:
        return "is of a format that spreads over several files; copy such slides to a folder of your own"
    return None


def without_secrets(address: str) -> str:
    """The address as messages may show it, without user, password and query (it may hold a signature)."""
    parts = urlsplit(address)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def lies_below(address: str, root: str) -> bool:
    """Whether `address` lies below `root`; False if it has a ``..``, also an encoded one, which may lead elsewhere."""
    return ".." not in unquote(address).split("/") and address.startswith(f"{root.rstrip('/')}/")


def file_name(path: str) -> str:
    """The last part of a path or an address."""
    return Path(unquote(urlsplit(path).path) if is_remote(path) else path).name


def why_unavailable(state: str) -> str | None:
    """Why a remote file is unavailable, by its state (:func:`lesionmap.servers.remote.states`); else None."""
    kind, _, why = state.partition(": ")
    return why if kind in (ABSENT, REFUSED) else None


def n_bytes(state: str) -> int:
    """Size in bytes, from the state of a file that is there."""
    return int(state.split()[0])
