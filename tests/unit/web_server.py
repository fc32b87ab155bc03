"""A web server of a folder's files, which writes down what it is asked for and is in trouble where its paths say so."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Handler(SimpleHTTPRequestHandler):
    """Below /refused/ it refuses, below /cut/ it breaks off halfway, below /busy/ it is busy twice."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        if not self._in_trouble():
            super().do_HEAD()

    def do_GET(self) -> None:
        if self._in_trouble():
            return
        if self.path.startswith("/cut/"):
            content = Path(self.translate_path(self.path)).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
            return
        super().do_GET()

    def _in_trouble(self) -> bool:
        self.server.asked.append((self.command, self.path))
        busy = self.path.startswith("/busy/") and len([path for _, path in self.server.asked if path == self.path]) <= 2
        if busy or self.path.startswith("/refused/"):
            self.send_error(503 if busy else 403)
            return True
        return False

    def log_message(self, *_: object) -> None:
        """It keeps its own log."""


class Server(ThreadingHTTPServer):
    """`asked` holds (method, path) of every request."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self.folder, self.asked = folder, list[tuple[str, str]]()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    server = Server(folder)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()
