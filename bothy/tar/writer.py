"""The headers of a tar that is written: ustar where that says it all, PAX records (pax(1p)) where it does not. Pure.

Holes of large files are told as GNU tar's sparse format 1.0, which GNU tar, libarchive, Go and Python read: the archive of a file
of a terabyte with nothing in it is a kilobyte.
"""

from __future__ import annotations

from bothy.tar.headers import BLOCK, CHARACTER, DIRECTORY, PAX, REGULAR, XATTR

TRAILER = bytes(2 * BLOCK)
_NAME, _NUMBER, _LARGE = 100, 0o7777777, 0o77777777777
_SPARSE = b"GNUSparseFile.0"


def padding(size: int) -> bytes:
    """What follows a content of `size` bytes."""
    return bytes(-size % BLOCK)


def header(
    name: bytes,
    kind: bytes = REGULAR,
    *,
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    size: int = 0,
    mtime: int = 0,
    link: bytes = b"",
    device: tuple[int, int] = (0, 0),
    xattrs: dict[bytes, bytes] | None = None,
    sparse: tuple[int, int] | None = None,
) -> bytes:
    """The blocks before an entry's content. `mtime` in whole seconds; a folder's name gets its slash.

    `sparse`: the content is a `sparse_map` and pieces, `size` bytes in all; of a file that has the first number of bytes, in that
    many more bytes of map (the second number).
    """
    if kind == DIRECTORY and not name.endswith(b"/"):
        name += b"/"
    pax = {XATTR + key: value for key, value in (xattrs or {}).items()}
    if sparse is not None:
        real, extra = sparse
        folder, _, base = name.rpartition(b"/")
        pax |= {
            b"GNU.sparse.major": b"1",
            b"GNU.sparse.minor": b"0",
            b"GNU.sparse.name": name,
            b"GNU.sparse.realsize": b"%d" % real,
        }
        name = (folder + b"/" if folder else b"") + _SPARSE + b"/" + base
        size += extra
    if len(name) > _NAME:
        pax[b"path"] = name
    if len(link) > _NAME:
        pax[b"linkpath"] = link
    for key, value, most in ((b"uid", uid, _NUMBER), (b"gid", gid, _NUMBER), (b"size", size, _LARGE), (b"mtime", mtime, _LARGE)):
        if not 0 <= value <= most:
            pax[key] = b"%d" % value
    block = _block(name[:_NAME], kind, mode, uid, gid, size, mtime, link[:_NAME], device)
    if not pax:
        return block
    records = b"".join(_record(key, value) for key, value in pax.items())
    extended = _block(b"PaxHeaders.0/" + name[-80:], PAX, 0o644, 0, 0, len(records), 0, b"", (0, 0))
    return extended + records + padding(len(records)) + block


def sparse_map(pieces: list[tuple[int, int]]) -> bytes:
    """The beginning of a sparse file's content: where in the file the (offset, length) pieces are that follow."""
    lines = [len(pieces), *(number for piece in pieces for number in piece)]
    text = b"".join(b"%d\n" % number for number in lines)
    return text + padding(len(text))


def _block(
    name: bytes, kind: bytes, mode: int, uid: int, gid: int, size: int, mtime: int, link: bytes, device: tuple[int, int]
) -> bytes:
    major, minor = device
    fields = b"".join(
        (
            name.ljust(100, b"\0"),
            b"%07o\0" % (mode & 0o7777),
            b"%07o\0" % _fitting(uid, _NUMBER),
            b"%07o\0" % _fitting(gid, _NUMBER),
            b"%011o\0" % _fitting(size, _LARGE),
            b"%011o\0" % _fitting(mtime, _LARGE),
            b" " * 8,
            kind,
            link.ljust(100, b"\0"),
            b"ustar\00000",
            bytes(64),
            b"%07o\0%07o\0" % (_fitting(major, _NUMBER), _fitting(minor, _NUMBER)) if kind >= CHARACTER else bytes(16),
        )
    ).ljust(BLOCK, b"\0")
    return fields[:148] + b"%06o\0 " % sum(fields) + fields[156:]


def _fitting(value: int, most: int) -> int:
    """A number that its field can hold; what can not be held is told by a PAX record."""
    return value if 0 <= value <= most else 0


def _record(key: bytes, value: bytes) -> bytes:
    """`length key=value\\n`, where the length counts itself."""
    body = b" " + key + b"=" + value + b"\n"
    length = len(body) + 1
    while length != len(body) + len(str(length)):
        length = len(body) + len(str(length))
    return b"%d" % length + body
