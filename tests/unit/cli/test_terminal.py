"""Detach keys."""

from __future__ import annotations

import pytest

from bothy.cli.errors import UsageError
from bothy.cli.terminal import DetachKeys, key_codes


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", b"\x10\x11"), ("ctrl-p,ctrl-q", b"\x10\x11"), ("a,ctrl-@,ctrl-[", b"a\x00\x1b"), ("ctrl-A", b"\x01"), ("~,.", b"~.")],
)
def test_names_of_keys(text: str, expected: bytes) -> None:
    assert key_codes(text) == expected


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-pp", "abc", "a,,b", "ctrl-1", "ä"])
def test_names_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="invalid detach keys"):
        key_codes(text)


@pytest.mark.parametrize(
    ("typed", "sent", "detached"),
    [
        ([b"hello"], b"hello", False),
        ([b"\x10\x11"], b"", True),
        ([b"a\x10", b"\x11b"], b"a", True),
        ([b"\x10", b"x"], b"\x10x", False),
        ([b"\x10\x10\x11"], b"\x10", True),
        ([b"\x10"], b"", False),
        ([b"\x11\x10x\x10\x11"], b"\x11\x10x", True),
    ],
)
def test_keys_are_found_wherever_reads_end(typed: list[bytes], sent: bytes, detached: bool) -> None:
    keys, told, seen = DetachKeys(b"\x10\x11"), b"", False
    for data in typed:
        part, seen = keys.feed(data)
        told += part
    assert (told, seen) == (sent, detached)
