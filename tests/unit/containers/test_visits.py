"""Visits without a container: paths as Docker reads them, the wire, and the comparison of trees."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothy.containers.visits import changes, paths, wire
from bothy.containers.visits.changes import ADDED, DELETED, MODIFIED, Trees


@pytest.mark.parametrize(
    ("path", "cleaned"),
    [
        ("/", "/"), ("", "/"), (".", "/."), ("a", "/a"), ("/a/../b", "/b"), ("/../../a/", "/a/"), ("a/.", "/a/."), ("/.", "/."),
        ("//a//b", "/a/b"), ("/a/..", "/"), ("/a/./b", "/a/b"),
    ],
)  # fmt: skip
def test_clean(path: str, cleaned: str) -> None:
    assert paths.clean(path) == cleaned


@pytest.mark.parametrize(
    ("mode", "told"),
    [
        (stat.S_IFREG | 0o644, 0o644),
        (stat.S_IFDIR | 0o1777, 1 << 31 | 1 << 20 | 0o777),
        (stat.S_IFLNK | 0o777, 1 << 27 | 0o777),
        (stat.S_IFREG | 0o6755, 1 << 23 | 1 << 22 | 0o755),
        (stat.S_IFCHR | 0o600, 1 << 26 | 1 << 21 | 0o600),
        (stat.S_IFBLK | 0o600, 1 << 26 | 0o600),
        (stat.S_IFIFO | 0o600, 1 << 25 | 0o600),
        (stat.S_IFSOCK | 0o600, 1 << 24 | 0o600),
    ],
)
def test_go_mode(mode: int, told: int) -> None:
    assert paths.go_mode(mode) == told


@given(
    st.lists(st.tuples(st.sampled_from([wire.DATA, wire.MESSAGE, wire.END]), st.binary(max_size=50)), max_size=10),
    st.lists(st.integers(1, 20), min_size=1),
)
def test_the_wire(frames: list[tuple[int, bytes]], cuts: list[int]) -> None:
    sent = [(kind, b"" if kind == wire.END else payload) for kind, payload in frames]
    data = b"".join(wire.encode(kind, payload) for kind, payload in sent)
    decoder, found, at, turn = wire.Decoder(), [], 0, 0
    while at < len(data):
        size = cuts[turn % len(cuts)]
        found += decoder.feed(data[at : at + size])
        at, turn = at + size, turn + 1
    assert _joined([tuple(frame) for frame in found]) == _joined([f for f in sent if f[0] != wire.DATA or f[1]])


def _joined(frames: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """Data in a row as one piece."""
    out: list[tuple[int, bytes]] = []
    for kind, payload in frames:
        if kind == wire.DATA and out and out[-1][0] == wire.DATA:
            out[-1] = (kind, out[-1][1] + payload)
        else:
            out.append((kind, payload))
    return out


@pytest.mark.parametrize("data", [b"\x09\0\0\0\1x", b"\x01\xff\xff\xff\xff", b"\0" * 5])
def test_nonsense_on_the_wire(data: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.Decoder().feed(data)


@pytest.mark.parametrize("payload", [b"", b"[]", b"{", b"[" * 100000, b"\xff", b"1"])
def test_messages_that_are_none(payload: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.message_of(payload)


def test_a_line_that_breaks_off() -> None:
    incoming, theirs = os.pipe()
    mine, outgoing = os.pipe()
    line = wire.Line(incoming, outgoing)
    os.write(theirs, wire.encode_message({"a": 1}) + wire.encode(wire.DATA, b"abc"))
    assert line.message() == {"a": 1}
    coming = line.incoming()
    assert next(coming) == b"abc"
    os.close(theirs)
    with pytest.raises(wire.BrokenOff):
        next(coming)
    with pytest.raises(wire.BrokenOff):
        line.say(ok={})
    for fd in (incoming, mine, outgoing):
        os.close(fd)


def test_a_file_that_shrinks_ends_in_zeros(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    incoming, theirs = os.pipe()
    mine, outgoing = os.pipe()
    line = wire.Line(incoming, outgoing)
    with path.open("rb") as file:
        line.send_file(file.fileno(), 90, 20)
        line.flush()
        line.send_file(file.fileno(), 0, 0)
    assert wire.Decoder().feed(os.read(mine, 1000)) == [wire.Frame(wire.DATA, b"x" * 10 + bytes(10))]
    for fd in (incoming, theirs, mine, outgoing):
        os.close(fd)


def make(root: Path, tree: dict[str, str | None]) -> Path:
    """A tree: folders are None; all times are the same."""
    root.mkdir()
    for name, text in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            path.mkdir(exist_ok=True)
        else:
            path.write_text(text)
    for path in [*root.rglob("*"), root]:
        os.utime(path, (1000, 1000))
    return root


def compare(
    tmp_path: Path, upper: dict[str, str | None], lower: dict[str, str | None], merged: dict[str, str | None], *own: str
) -> list[tuple[str, int]]:
    trees = [make(tmp_path / name, tree) for name, tree in (("u", upper), ("l", lower), ("m", merged))]
    fds = [os.open(tree, os.O_RDONLY) for tree in trees]
    try:
        return changes.compare(Trees(*fds), frozenset(own))
    finally:
        for fd in fds:
            os.close(fd)


def test_comparison(tmp_path: Path) -> None:
    lower = {"a/same": "1", "a/changed": "1", "a/gone": "1", "b/x": "1", "c/old": "1", "f": "1", "d2f/x": "1"}
    upper = {
        "a/same": "1",
        "a/changed": "22",
        "new/deep/file": "1",
        "b": "now a file",
        "c/own": "1",
        "f": None,
        "d2f": "1",
        "a/gone": "",
    }
    merged = {
        "a/same": "1", "a/changed": "22", "new/deep/file": "1", "b": "now a file", "c/own": "1", "f": None, "d2f": "1",
    }  # fmt: skip
    assert compare(tmp_path, upper, lower, merged) == [
        ("/a", MODIFIED), ("/a/changed", MODIFIED), ("/a/gone", DELETED), ("/b", MODIFIED), ("/c", MODIFIED), ("/c/old", DELETED),
        ("/c/own", ADDED), ("/d2f", MODIFIED), ("/f", MODIFIED), ("/new", ADDED), ("/new/deep", ADDED), ("/new/deep/file", ADDED),
    ]  # fmt: skip


def test_what_is_ours_is_no_change(tmp_path: Path) -> None:
    upper = {"etc/hosts": "", "etc/hostname": "written", "dev": None, "etc/mine": ""}
    found = compare(tmp_path, upper, {"etc": None}, upper, "/etc/hosts", "/etc/hostname", "/dev")
    assert found == [("/etc", MODIFIED), ("/etc/hostname", ADDED), ("/etc/mine", ADDED)]


def test_a_folder_with_another_mode_only(tmp_path: Path) -> None:
    for name in ("u", "l", "m"):
        make(tmp_path / name, {"d/x": "1"})
    (tmp_path / "m/d").chmod(0o700)
    fds = [os.open(tmp_path / name, os.O_RDONLY) for name in ("u", "l", "m")]
    assert changes.compare(Trees(*fds)) == [("/d", MODIFIED)]
    for fd in fds:
        os.close(fd)


def test_strange_names_are_told(tmp_path: Path) -> None:
    incoming, theirs = os.pipe()
    mine, outgoing = os.pipe()
    changes.tell(wire.Line(incoming, outgoing), [("/with\nnewline", ADDED), ("/\udcff", DELETED)])
    (frame,) = wire.Decoder().feed(os.read(mine, 1000))
    assert [json.loads(line) for line in frame.payload.splitlines()] == [["/with\nnewline", 1], ["/\udcff", 2]]
    for fd in (incoming, theirs, mine, outgoing):
        os.close(fd)
