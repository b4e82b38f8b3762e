"""A lean tar reader, with sparse files. It reads, and does nothing else.

    for entry in Reader(stream, recipe):      every entry once, in order
        reader.content(entry)                 its bytes as (offset in the file, piece), holes left out

Written because the standard library's tarfile costs more than the system calls that a layer needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from bothy.tar import headers
from bothy.tar.headers import (
    BLOCK,
    DIRECTORY,
    GNU_LINK,
    GNU_NAME,
    GNU_SPARSE,
    KNOWN,
    MAX_EXTENSION,
    MAX_NUMBER,
    PAX,
    PAX_GLOBAL,
    REGULAR,
    VOLUME,
    ZEROS,
    Damaged,
    Entry,
    decimal,
    number,
    show,
)  # fmt: skip

MAX_SPARSE = 1 << 20


class Stream(Protocol):
    """Where the bytes come from."""

    def take(self, size: int) -> bytes:
        """Exactly `size` bytes; empty at the very end. Raises Damaged if it ends within."""

    def pieces(self, size: int) -> Iterator[memoryview]:
        """`size` bytes in pieces as they come. Raises Damaged if it ends within."""

    def rest(self) -> Iterator[memoryview]:
        """Everything that is left."""


class Recipe(Protocol):
    """Who is told what passes, to put the same archive together again."""

    def raw(self, data: bytes | memoryview) -> None:
        """These bytes."""

    def file(self, path: bytes, size: int) -> None:
        """The content of a file of the folder."""


class Forgetful:
    """A recipe for archives that nobody will want again."""

    def raw(self, data: bytes | memoryview) -> None:
        return

    def file(self, path: bytes, size: int) -> None:
        return


class Reader:
    """Reads entries from a stream, and writes down in a recipe what a folder will not keep."""

    def __init__(self, stream: Stream, recipe: Recipe) -> None:
        self._stream = stream
        self._recipe = recipe
        self._left = 0
        self._padding = 0
        self._begun = False

    def __iter__(self) -> Iterator[Entry]:
        long_name = long_link = None
        pax: dict[bytes, bytes] = {}
        while (header := self._header()) is not None:
            entry = Entry(header)
            if entry.size < 0:
                raise Damaged(f"entry {show(entry.name)} has a negative size")
            if entry.type in (GNU_NAME, GNU_LINK, PAX, PAX_GLOBAL):
                data = self._extension(entry)
                if entry.type == GNU_NAME:
                    long_name = headers.text(data)
                elif entry.type == GNU_LINK:
                    long_link = headers.text(data)
                elif entry.type == PAX:
                    pax = headers.parse_pax(data)
                continue
            if long_name is not None:
                entry.name = long_name
            if long_link is not None:
                entry.link = long_link
            if pax:
                headers.apply_pax(entry, pax)
            self._begin(entry, header, pax)
            long_name = long_link = None
            pax = {}
            if entry.type != VOLUME:
                yield entry
            self._skip()
        for piece in self._stream.rest():
            self._recipe.raw(piece)

    def _header(self) -> bytes | None:
        """The next header block, or None at the end of the archive."""
        block = self._take(BLOCK)
        if not block:
            return None
        if block == ZEROS:
            second = self._take(BLOCK)
            if not second or second == ZEROS:
                return None
            block = second
        if len(block) < BLOCK or not headers.checksum_is_right(block):
            raise Damaged("a header's checksum is wrong" if self._begun else "this is not a tar archive")
        self._begun = True
        return block

    def _take(self, size: int) -> bytes:
        data = self._stream.take(size)
        self._recipe.raw(data)
        return data

    def _extension(self, entry: Entry) -> bytes:
        if entry.size > MAX_EXTENSION:
            raise Damaged(f"an extended header has {entry.size} bytes")
        data = self._take(entry.size + -entry.size % BLOCK)
        if len(data) < entry.size:
            raise Damaged("archive ends too early")
        return data[: entry.size]

    def _begin(self, entry: Entry, header: bytes, pax: dict[bytes, bytes]) -> None:
        """Take what belongs to the entry's head and know how much content follows."""
        if entry.type == REGULAR and entry.name.endswith(b"/"):
            entry.type = DIRECTORY
        if entry.type not in (REGULAR, GNU_SPARSE):
            if entry.type not in (*KNOWN, VOLUME):
                raise Damaged(f"entry {show(entry.name)} has the unknown type {entry.type!r}")
            entry.size = entry.real_size = 0
        self._left, self._padding = entry.size, -entry.size % BLOCK
        if entry.type == GNU_SPARSE:
            entry.type = REGULAR
            entry.real_size = number(header[483:495])
            entry.sparse = self._gnu_map(header)
        elif b"GNU.sparse.major" in pax and entry.type == REGULAR:
            entry.real_size = decimal(pax.get(b"GNU.sparse.realsize", b"0"))
            entry.sparse = self._pax_map()
        elif entry.type == REGULAR and (b"GNU.sparse.map" in pax or b"GNU.sparse.size" in pax):
            entry.real_size = decimal(pax.get(b"GNU.sparse.size", b"0"))
            numbers = [decimal(n) for n in pax.get(b"GNU.sparse.map", b"").split(b",") if n]
            entry.sparse = _pairs(numbers)
        if entry.sparse is not None:
            _check_sparse(entry, self._left)

    def _gnu_map(self, header: bytes) -> list[tuple[int, int]]:
        """The map in an old GNU sparse header and the blocks that follow it."""
        numbers = [number(header[at : at + 12]) for at in range(386, 482, 12)]
        more = header[482]
        while more:
            block = self._take(BLOCK)
            if len(block) < BLOCK:
                raise Damaged("archive ends too early")
            numbers += [number(block[at : at + 12]) for at in range(0, 504, 12)]
            more = block[504]
            if len(numbers) > 2 * MAX_SPARSE:
                raise Damaged("a sparse file has too many pieces")
        return [(offset, length) for offset, length in _pairs(numbers) if length or offset]

    def _pax_map(self) -> list[tuple[int, int]]:
        """The map in front of the data of a PAX 1.0 sparse file: decimal lines, padded to a block."""
        lines: list[bytes] = []
        rest = b""
        while not lines or len(lines) < 1 + 2 * decimal(lines[0]):
            if self._left < BLOCK or len(lines) > 2 * MAX_SPARSE:
                raise Damaged("the map of a sparse file is damaged")
            self._left -= BLOCK
            *whole, rest = (rest + self._take(BLOCK)).split(b"\n")
            lines += whole
        count = decimal(lines[0])
        return _pairs([decimal(line) for line in lines[1 : 1 + 2 * count]])

    def content(self, entry: Entry, *, recorded_as: bytes | None) -> Iterator[tuple[int, memoryview]]:
        """The entry's data: (offset in the file, piece). To be read to its end.

        With `recorded_as` the recipe refers to that path of the folder, else it gets the data itself.
        """
        record = None if recorded_as is not None else self._recipe.raw
        if recorded_as is not None:
            self._recipe.file(recorded_as, self._left)
        size, self._left = self._left, 0
        for offset, length in entry.sparse if entry.sparse is not None else ((0, size),):
            at = offset
            for piece in self._stream.pieces(length):
                if record is not None:
                    record(piece)
                yield at, piece
                at += len(piece)

    def _skip(self) -> None:
        """Pass over content that nobody asked for, and the padding."""
        for piece in self._stream.pieces(self._left):
            self._recipe.raw(piece)
        if self._padding:
            self._recipe.raw(self._stream.take(self._padding))
        self._left = 0


def _pairs(numbers: list[int]) -> list[tuple[int, int]]:
    return list(zip(numbers[0::2], numbers[1::2], strict=False))


def _check_sparse(entry: Entry, available: int) -> None:
    """Pieces must be in order, inside the file, and just as long as the data that is there."""
    end = total = 0
    for offset, length in entry.sparse or ():
        if offset < end or length < 0:
            raise Damaged(f"the map of sparse file {show(entry.name)} is damaged")
        end = offset + length
        total += length
    if end > entry.real_size or total != available or entry.real_size > MAX_NUMBER:
        raise Damaged(f"the map of sparse file {show(entry.name)} is damaged")
