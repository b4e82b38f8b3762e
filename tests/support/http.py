"""Requests to an engine's socket as any program would make them."""

from __future__ import annotations

import http.client
import socket
from pathlib import Path


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=120)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(120)
        self.sock.connect(str(self._path))


def api(path: Path, method: str, target: str, body: bytes | None = None) -> tuple[int, dict[str, str], bytes]:
    """Status, headers (names in lower case) and body of an answer."""
    connection = _Connection(path)
    try:
        connection.request(method, target, body, {"Content-Type": "application/x-tar"} if body is not None else {})
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()
