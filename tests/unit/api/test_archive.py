"""The header in which Docker's clients are told of a file."""

from __future__ import annotations

import base64
import json

import pytest

from bothy.api.server.routes.archive import STAT, stat_header
from bothy.engine.model import FileStatus


def told(status: FileStatus) -> dict[str, object]:
    found: dict[str, object] = json.loads(base64.b64decode(stat_header(status)[STAT]))
    return found


def test_the_header() -> None:
    assert told(FileStatus("x", 5, 0o644, 1_700_000_000_120_000_000, "/t")) == {
        "name": "x", "size": 5, "mode": 0o644, "mtime": "2023-11-14T22:13:20.12Z", "linkTarget": "/t",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("mtime", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
        (1_000_000_001, "1970-01-01T00:00:01.000000001Z"),
        ((1 << 63) - 1, "2262-04-11T23:47:16.854775807Z"),
    ],
)
def test_times(mtime: int, text: str) -> None:
    assert told(FileStatus("x", 0, 0, mtime))["mtime"] == text
