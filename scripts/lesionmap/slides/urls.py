"""What can be said of the address of a slide on a server without asking the server."""

from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

S3, WEB = "s3", ("http", "https")
ABSENT, REFUSED = "absent", "refused"
OF_SEVERAL_FILES = (".mrxs", ".vms", ".vmu", ".dcm")


def is_remote(path: str) -> bool:
    """Whether `path` is an address that slides are fetched from, not a file."""
    return path.startswith(tuple(f"{scheme}://" for scheme in (S3, *WEB)))


def why_unfit(address: str) -> str | None:
    """What makes an address unfit for a sheet; None if it is fit."""
    parts = urlsplit(address)
    if not parts.hostname or not parts.path.strip("/"):
        return "names no file; write s3://bucket/key or https://server/path"
    if "@" in parts.netloc or parts.query or parts.fragment:
        return "holds a user or a query; keys belong in the environment (AWS_…) or ~/.netrc, not in a sheet"
    if Path(parts.path).suffix.lower() in OF_SEVERAL_FILES:
        return "is of a format that spreads over several files; copy such slides to a folder of your own"
    return None


def without_secrets(address: str) -> str:
    """The address as messages may show it: without user, password and query, which may be a signature."""
    parts = urlsplit(address)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def lies_below(address: str, root: str) -> bool:
    """Whether a server looks for `address` below `root`; steps back, also encoded ones, lead elsewhere."""
    return ".." not in unquote(address).split("/") and address.startswith(f"{root.rstrip('/')}/")


def file_name(path: str) -> str:
    """The last part of a path or an address."""
    return Path(unquote(urlsplit(path).path) if is_remote(path) else path).name


def why_unavailable(state: str) -> str | None:
    """The reason in the state of a remote file (:func:`lesionmap.slides.remote.states`), if it holds one."""
    kind, _, why = state.partition(": ")
    return why if kind in (ABSENT, REFUSED) else None


def n_bytes(state: str) -> int:
    """The size in the state of a file that is there."""
    return int(state.split()[0])
