"""What the engine makes of a visit's words: of a guest that means harm above all."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bothy.containers.visits import model, wire
from bothy.containers.visits.model import Request
from bothy.engine import trees
from bothy.engine.committing import merged
from bothy.engine.found import read_changes, read_status
from bothy.engine.visits import Failed, Visit, translated
from bothy.errors import BothyError, Broken, Conflict, Forbidden, Invalid, NotFound, Unavailable
from bothy.oci.image import ImageConfig


def begin(said: bytes) -> dict[str, object]:
    async def work() -> dict[str, object]:
        ours, theirs = socket.socketpair()
        theirs.sendall(said)
        theirs.shutdown(socket.SHUT_WR)
        visit = Visit(ours)
        try:
            return await visit.begin(Request(model.STAT))
        finally:
            visit.close()
            theirs.close()

    return asyncio.run(work())


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (b"", Unavailable),
        (b"HTTP/1.1 200 OK\r\n\r\n", Broken),
        (wire.encode(wire.DATA, b"x"), Broken),
        (wire.encode(wire.END), Broken),
        (wire.encode(wire.MESSAGE, b"[1]"), Broken),
        (wire.encode(wire.MESSAGE, b"\xff\xfe"), Broken),
        (wire.encode_message({"ok": [1]}), Broken),
        (wire.encode_message({}), Broken),
        (wire.encode_message({"error": 5}), Failed),
        (wire.encode_message({"error": {"errno": "x", "message": None, "path": 7}}), Failed),
    ],
)
def test_answers_that_are_none(said: bytes, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        begin(said)


def test_an_archive_that_breaks_off() -> None:
    async def work(said: bytes) -> list[bytes]:
        ours, theirs = socket.socketpair()
        theirs.sendall(said)
        theirs.close()
        killed: list[bool] = []
        visit = Visit(ours, kill=lambda: killed.append(True))
        try:
            found = [piece async for piece in visit.data()]
        finally:
            visit.close()
        assert not killed
        return found

    whole = wire.encode(wire.DATA, b"abc") + wire.encode_message({"end": {}})
    assert b"".join(asyncio.run(work(whole))) == b"abc"
    for said, kind in (
        (whole[:6], Unavailable),
        (whole[:8] + wire.encode(wire.END), Broken),
        (whole[:8] + wire.encode_message({"error": {}}), Failed),
    ):
        with pytest.raises((kind, AssertionError)):
            asyncio.run(work(said))


def test_an_archive_goes_in_until_the_visit_has_had_enough() -> None:
    """It is not waited for a client that sends nothing more."""

    async def endless() -> AsyncIterator[bytes]:
        yield b"first"
        await asyncio.Event().wait()

    async def work() -> None:
        ours, theirs = socket.socketpair()
        visit = Visit(ours)
        putting = asyncio.ensure_future(visit.put(endless()))
        await asyncio.sleep(0)
        theirs.sendall(wire.encode_message({"error": {"stage": "archive", "message": "no"}}))
        try:
            with pytest.raises(Failed, match="no"):
                await asyncio.wait_for(putting, 10)
        finally:
            visit.close()
            theirs.close()

    asyncio.run(work())


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"name": 1, "size": 1, "mode": 1, "mtime": 1, "linkTarget": ""},
        {"name": "x", "size": -1, "mode": 1, "mtime": 1, "linkTarget": ""},
        {"name": "x", "size": 1 << 80, "mode": 1, "mtime": 1, "linkTarget": ""},
        {"name": "x", "size": 1, "mode": 1 << 32, "mtime": 1, "linkTarget": ""},
        {"name": "x", "size": True, "mode": 1, "mtime": 1, "linkTarget": ""},
        {"name": "x", "size": 1, "mode": 1, "mtime": 1.5, "linkTarget": ""},
        {"name": "x", "size": 1, "mode": 1, "mtime": 1, "linkTarget": None},
    ],
)
def test_descriptions_that_are_none(said: dict[str, object]) -> None:
    with pytest.raises(Broken):
        read_status(said)


@pytest.mark.parametrize(
    "text", [b"[]\n", b"{}\n", b"nonsense\n", b'["relative", 1]\n', b'["/x", 9]\n', b'["/x"]\n', b'[["/x"], 1]\n', b"\xff\n"]
)
def test_changes_that_are_none(text: bytes) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield text

    with pytest.raises(Broken):
        asyncio.run(read_changes(pieces()))


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        ({"stage": "visit", "errno": 2}, NotFound, "Could not find the file /p in container c"),
        ({"stage": "visit", "errno": 20}, NotFound, "Could not find"),
        ({"stage": "gone"}, Conflict, "not running"),
        ({"stage": "archive", "message": "bad"}, Invalid, "bad"),
        ({"stage": "readonly", "path": "/p"}, Forbidden, "read only /p"),
        ({"stage": "visit", "errno": 30, "path": "/q"}, Forbidden, "read only /q"),
        ({"stage": "visit", "errno": 28, "message": "full"}, Unavailable, "full"),
        ({"stage": "visit", "errno": 40, "message": "links"}, Invalid, "links"),
        ({"stage": "mount", "errno": 2, "message": "gone"}, Broken, "gone"),
        ({"nonsense": []}, Broken, "the visit failed"),
    ],
)
def test_failures_in_the_engines_words(said: dict[str, object], kind: type[BothyError], words: str) -> None:
    made = translated(Failed(said), "/p", "c", lambda path: f"read only {path}")
    assert type(made) is kind
    assert words in made.message


def test_the_configuration_of_a_commit() -> None:
    workload = ImageConfig(env=["A=1", "B=2"], cmd=["run"], entrypoint=["/e"], labels={"x": "1"}, user="me", working_dir="/w")
    asked = ImageConfig(env=["B=3"], labels={"y": "2"})
    found = merged(asked, workload)
    assert (found.env, found.cmd, found.entrypoint, found.labels) == (["A=1", "B=3"], ["run"], ["/e"], {"x": "1", "y": "2"})
    assert (found.user, found.working_dir) == ("me", "/w")
    assert merged(ImageConfig(entrypoint=["/other"]), workload).cmd is None
    assert merged(ImageConfig(cmd=["other"]), workload).entrypoint == ["/e"]


def test_trees_without_bottom_are_removed(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    here = os.open(top, os.O_RDONLY)
    for number in range(3000):
        os.mkdir("d", dir_fd=here)
        os.close(os.open(f"f{number}", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    (top / ".moved-1").mkdir()
    (top / ".moved-1/x").touch()
    (top / "link").symlink_to(tmp_path)
    assert trees.size(str(top)) >= 0
    trees.delete(str(top))
    assert os.listdir(tmp_path) == []
