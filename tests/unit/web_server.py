"""A web server of a folder's files, which writes down what it is asked for and is in trouble where its paths say so."""

import hashlib
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Handler(SimpleHTTPRequestHandler):
    """In trouble where its paths say so.

    Below /refused/ it refuses, below /cut/ it always breaks off halfway and below /frail/ the first time
    (and has, from then on, the content of a file .then beside it), below /busy/ it is
    busy twice, below /only-get/ it does not know HEAD, and it leads elsewhere from the paths of its `redirects`.
    """

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        if not self._in_trouble():
            super().do_HEAD()

    def do_GET(self) -> None:
        if self._in_trouble():
            return
        if self.path.startswith(("/cut/", "/frail/")):
            self._send_a_part()
        else:
            super().do_GET()

    def _send_a_part(self) -> None:
        """All from the byte on that is asked for, if the file is still the same; halfway of that it may break off."""
        content = Path(self.translate_path(self.path)).read_bytes()
        version = hashlib.sha256(content).hexdigest()
        then = Path(self.translate_path(self.path)).with_suffix(".then")
        if then.exists():
            then.rename(then.with_suffix(".tif"))
        same = self.headers["If-Range"] == version
        start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-")) if same else 0
        breaks_off = self.path.startswith("/cut/") or self.server.asked.count(("GET", self.path)) == 1
        self.server.sent.append(len(content) - start)
        self.send_response(206 if same else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", version)
        self.end_headers()
        self.wfile.write(content[start : start + (len(content) - start) // 2] if breaks_off else content[start:])
        self.close_connection = breaks_off

    def _in_trouble(self) -> bool:
        self.server.asked.append((self.command, self.path))
        self.server.headers.append(self.headers)
        busy = self.path.startswith("/busy/") and len([path for _, path in self.server.asked if path == self.path]) <= 2
        if busy or self.server.closed or self.path.startswith("/refused/"):
            self.send_error(503 if busy else 403)
            return True
        if self.path.startswith("/only-get/") and self.command == "HEAD":
            self.send_error(405)
            return True
        if redirect := self._redirect():
            status, place = redirect
            self.send_response(status)
            self.send_header("Location", place)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return True
        return False

    def _redirect(self) -> tuple[int, str] | None:
        first = self.server.asked.count((self.command, self.path)) == 1
        found = self.server.redirects.get(self.path)
        return found if first else self.server.redirects_later.get(self.path, found)

    def log_message(self, *_: object) -> None:
        """It keeps its own log."""


class Server(ThreadingHTTPServer):
    """`asked` holds (method, path) of every request and `headers` its headers, `sent` what frail ones were to have.

    `closed` refuses all; `redirects` holds status and Location of the paths that it redirects, `redirects_later` of
    those that it redirects from the second time on.
    """

    def __init__(self, folder: Path, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.folder, self.closed = folder, False
        self.asked, self.headers, self.sent = list[tuple[str, str]](), list[Message](), list[int]()
        self.redirects, self.redirects_later = dict[str, tuple[int, str]](), dict[str, tuple[int, str]]()
        self.scheme = "https" if tls else "http"
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True)

    @property
    def address(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_port}"


@contextmanager
def serving(folder: Path, tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    server = Server(folder, tls)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()
