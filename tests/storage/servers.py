"""The two servers that slides are fetched from, and what they have been asked for."""

import logging
from dataclasses import dataclass, field
from typing import Any

from web_server import Server

BUCKET = "pathology"


@dataclass
class Store:
    """Both servers, and what they have been asked for: (method, last part of the path)."""

    s3: Any
    web: Server
    asked_of_s3: list[tuple[str, str]] = field(default_factory=list)

    @property
    def asked(self) -> list[tuple[str, str]]:
        asked = [*self.asked_of_s3, *self.web.asked]
        return [(method, path.partition("?")[0].rpartition("/")[2]) for method, path in asked]

    def downloads(self) -> set[str]:
        return {name.removesuffix(".tif") for method, name in self.asked if method == "GET"}

    def forget(self) -> None:
        self.asked_of_s3.clear()
        self.web.asked.clear()


class Listener(logging.Handler):
    """Reads the lines in which the S3 server tells of requests."""

    def __init__(self, asked: list[tuple[str, str]]) -> None:
        super().__init__()
        self.asked = asked

    def emit(self, record: logging.LogRecord) -> None:
        method, _, path = record.getMessage().partition('"')[2].partition(" ")
        self.asked.append((method.removeprefix("\x1b[1m").rpartition("m")[2], path.split()[0]))
