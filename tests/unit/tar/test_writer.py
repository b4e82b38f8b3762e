"""Headers that are written, read by others: the standard library's tarfile, and our own reader."""

from __future__ import annotations

import io
import tarfile

from hypothesis import given
from hypothesis import strategies as st

from bothy.tar import headers, writer
from bothy.tar.reader import Forgetful, Reader
from bothy.tar.stream import Chunks

NAMES = st.binary(min_size=1, max_size=300).filter(lambda name: b"\0" not in name and not name.endswith(b"/") and name.strip(b"/"))
NUMBERS = st.integers(0, (1 << 40) - 1)


def read(archive: bytes) -> list[headers.Entry]:
    return list(Reader(Chunks([archive]), Forgetful()))


@given(NAMES, st.integers(0, 0o7777), NUMBERS, NUMBERS, st.integers(-(1 << 33), 1 << 33), st.binary(max_size=200))
def test_what_is_written_is_read(name: bytes, mode: int, uid: int, gid: int, mtime: int, value: bytes) -> None:
    head = writer.header(name, mode=mode, uid=uid, gid=gid, size=3, mtime=mtime, xattrs={b"user.x": value})
    (entry,) = read(head + b"abc" + writer.padding(3) + writer.TRAILER)
    assert (entry.name, entry.mode, entry.uid, entry.gid, entry.size) == (name, mode, uid, gid, 3)
    assert (entry.mtime, entry.xattrs) == (mtime * 10**9, {b"user.x": value})


def test_kinds_as_tarfile_reads_them() -> None:
    long = b"d/" * 80 + b"end"
    archive = b"".join(
        (
            writer.header(b"folder", headers.DIRECTORY, mode=0o1777),
            writer.header(b"link", headers.SYMLINK, link=long),
            writer.header(b"node", headers.CHARACTER, device=(5, 1)),
            writer.header(long, headers.HARDLINK, link=b"folder/x", uid=1 << 30),
            writer.TRAILER,
        )
    )
    with tarfile.open(fileobj=io.BytesIO(archive)) as found:
        folder, link, node, hard = found.getmembers()
    assert (folder.name, folder.isdir(), folder.mode) == ("folder", True, 0o1777)
    assert (link.issym(), link.linkname) == (True, long.decode())
    assert (node.ischr(), node.devmajor, node.devminor) == (True, 5, 1)
    assert (hard.islnk(), hard.name, hard.linkname, hard.uid) == (True, long.decode(), "folder/x", 1 << 30)


def test_holes() -> None:
    pieces = [(0, 5), (1 << 35, 3), (1 << 36, 0)]
    table = writer.sparse_map(pieces)
    head = writer.header(b"a/holes", size=8, sparse=(1 << 36, len(table)))
    archive = head + table + b"beginend" + writer.padding(8) + writer.TRAILER
    reader = Reader(Chunks([archive]), Forgetful())
    for entry in reader:
        assert (entry.name, entry.real_size) == (b"a/holes", 1 << 36)
        assert [(at, bytes(piece)) for at, piece in reader.content(entry, recorded_as=b"")] == [(0, b"begin"), (1 << 35, b"end")]
    with tarfile.open(fileobj=io.BytesIO(archive)) as found:
        (member,) = found.getmembers()
        file = found.extractfile(member)
        assert file
        assert (member.name, member.size, file.read(6)) == ("a/holes", 1 << 36, b"begin\0")
        file.seek(1 << 35)
        assert file.read(4) == b"end\0"
