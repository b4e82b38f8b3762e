"""What a visit says that it has found, checked: it may be the word of a guest that somebody has taken over."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from bothy.engine.model import Change, FileStatus
from bothy.errors import Broken

_MOST = 64 * 1024 * 1024
_LARGEST = (1 << 63) - 1


def read_status(said: dict[str, Any]) -> FileStatus:
    """Raises Broken for what is no description of a file."""
    name, target = said.get("name"), said.get("linkTarget")
    numbers = [said.get(key) for key in ("size", "mode", "mtime")]
    if not isinstance(name, str) or not isinstance(target, str):
        raise Broken("the visit's description of a file can not be read")
    size, mode, mtime = (n if isinstance(n, int) and not isinstance(n, bool) and abs(n) <= _LARGEST else None for n in numbers)
    if size is None or mode is None or mtime is None or size < 0 or not 0 <= mode < 1 << 32:
        raise Broken("the visit's description of a file can not be read")
    return FileStatus(name, size, mode, mtime, target)


async def read_changes(pieces: AsyncIterator[bytes]) -> list[Change]:
    """Changes from lines of JSON. Raises Broken for what are none."""
    text = bytearray()
    async for piece in pieces:
        text += piece
        if len(text) > _MOST:
            raise Broken("the list of changes is too long")
    found = []
    for line in text.splitlines():
        try:
            path, kind = json.loads(line)
        except (ValueError, TypeError, RecursionError):
            raise Broken("the visit's list of changes can not be read") from None
        if not isinstance(path, str) or not path.startswith("/") or kind not in (0, 1, 2):
            raise Broken("the visit's list of changes can not be read")
        found.append(Change(path, int(kind)))
    return found
