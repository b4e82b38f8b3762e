"""Bytes on their way from an archive to a layer: a section of a file, decompressed, hashed, in a thread of its own.

    file ──pread──▶ Section ──▶ gzip | zstd | xz | bzip2 | plain ──▶ sha256 ──▶ queue ──▶ Stream.take / Stream.pieces
                      └ sha256 of the bytes as they came               (producer thread)    (the caller's thread)

Used in worker processes only. All three heavy steps (read, inflate, hash) let go of the GIL, so the thread that writes files runs
beside them.
"""

from __future__ import annotations

import bz2
import hashlib
import lzma
import os
import queue
import threading
from collections.abc import Iterator
from typing import BinaryIO, Protocol, cast

import zstandard
from isal import isal_zlib

from bothy.images import magic
from bothy.tar.headers import Damaged

CHUNK = 1 << 20
AHEAD = 8
MAX_ZSTD_WINDOW = 1 << 27


class Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


class Section:
    """Part of a file: `size` bytes from `offset` (to the end if size is negative). Hashes what passes if asked to.

    A file that can not seek is read as it comes, offset and size ignored.
    """

    def __init__(self, fd: int, offset: int = 0, size: int = -1, *, hashed: bool = False) -> None:
        self._fd = fd
        self._at = offset
        self._left = size if size >= 0 else 1 << 62
        self._seekable = _can_seek(fd)
        self._held = b""
        self.hash = hashlib.sha256() if hashed else None

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes (a chunk if negative), empty at the end."""
        if self._held:
            data, self._held = self._held, b""
            return data
        return self._fetch(CHUNK if size < 0 else size)

    def peek(self, size: int) -> bytes:
        """The next `size` bytes, or fewer at the end, which the next `read` returns again."""
        while len(self._held) < size:
            more = self._fetch(CHUNK)
            if not more:
                break
            self._held += more
        return self._held[:size]

    def drain(self) -> None:
        """Read what is left, for the hash."""
        while self.read():
            pass

    def _fetch(self, size: int) -> bytes:
        if not self._seekable:
            data = os.read(self._fd, size)
        else:
            data = os.pread(self._fd, min(size, self._left), self._at) if self._left else b""
            self._at += len(data)
            self._left -= len(data)
        if self.hash is not None:
            self.hash.update(data)
        return data


def _can_seek(fd: int) -> bool:
    try:
        os.lseek(fd, 0, os.SEEK_CUR)
    except OSError:
        return False
    return True


class _Gunzip:
    """A gzip file of one or more members; zeros after the last are allowed, as gzip(1) allows them."""

    def __init__(self, source: Readable) -> None:
        self._source = source
        self._inflate = isal_zlib.decompressobj(wbits=31)
        self._input = b""

    def read(self, size: int = -1, /) -> bytes:
        while True:
            if self._inflate.eof:
                rest = self._inflate.unused_data.lstrip(b"\0") or self._source.read(CHUNK).lstrip(b"\0")
                if not rest:
                    return b""
                self._inflate = isal_zlib.decompressobj(wbits=31)
                self._input = rest
            if not self._input:
                self._input = self._source.read(CHUNK)
                if not self._input:
                    raise Damaged("compressed data ends too early")
            data: bytes = self._inflate.decompress(self._input, CHUNK)
            self._input = self._inflate.unconsumed_tail
            if data:
                return data


_BAD_DATA = (cast(type[Exception], isal_zlib.error), zstandard.ZstdError, lzma.LZMAError, EOFError, ValueError)


class _Checked:
    """Reads from a decoder whose complaints become Damaged."""

    def __init__(self, source: Readable) -> None:
        self._source = source

    def read(self, size: int = -1, /) -> bytes:
        try:
            return self._source.read(size)
        except _BAD_DATA as exc:
            raise Damaged(f"compressed data is damaged: {exc}") from None


def decompressed(section: Section) -> Readable:
    """What the section holds, decompressed if its first bytes say that it is compressed. Reading it raises Damaged."""
    return _Checked(_decoder(section))


def _decoder(section: Section) -> Readable:
    head = section.peek(magic.ENOUGH)
    if head.startswith(magic.GZIP):
        return _Gunzip(section)
    if head.startswith(magic.ZSTD):
        decoder = zstandard.ZstdDecompressor(max_window_size=MAX_ZSTD_WINDOW)
        return decoder.stream_reader(cast(BinaryIO, section), read_across_frames=True)
    if head.startswith(magic.XZ):
        return cast(Readable, lzma.LZMAFile(cast(BinaryIO, section)))  # only its read() is used
    if head.startswith(magic.BZIP2):
        return cast(Readable, bz2.BZ2File(cast(BinaryIO, section)))
    return section


class Stream:
    """The decompressed bytes of a section, hashed, with exact reads. `finish` tells the digests."""

    def __init__(self, section: Section) -> None:
        self._section = section
        self._queue: queue.Queue[bytes | BaseException] = queue.Queue(AHEAD)
        self._hash = hashlib.sha256()
        self._chunk = memoryview(b"")
        self._ended = False
        self._stopped = threading.Event()
        self.size = 0
        self._thread = threading.Thread(target=self._produce, name="stream", daemon=True)
        self._thread.start()

    def _produce(self) -> None:
        try:
            source = decompressed(self._section)
            while not self._stopped.is_set():
                data = source.read(CHUNK)
                if not data:
                    break
                self._hash.update(data)
                self._queue.put(data)
            self._section.drain()
            self._queue.put(b"")
        except BaseException as exc:
            self._queue.put(exc)

    def _more(self) -> bool:
        """Have a chunk that is not empty; False at the end."""
        if self._ended:
            return False
        item = self._queue.get()
        if isinstance(item, BaseException):
            self._ended = True
            raise item
        self._chunk = memoryview(item)
        self._ended = not item
        self.size += len(item)
        return bool(item)

    def take(self, size: int) -> bytes:
        """Exactly `size` bytes; empty at the very end. Raises Damaged if it ends within."""
        chunk = self._chunk
        if len(chunk) >= size:
            self._chunk = chunk[size:]
            return bytes(chunk[:size])
        parts = list(self.pieces(size, may_be_empty=True))
        return b"".join(parts)

    def pieces(self, size: int, *, may_be_empty: bool = False) -> Iterator[memoryview]:
        """`size` bytes in pieces as they come, not copied. Raises Damaged if it ends within."""
        left = size
        while left:
            if not self._chunk and not self._more():
                if may_be_empty and left == size:
                    return
                raise Damaged("archive ends too early")
            piece = self._chunk[:left]
            self._chunk = self._chunk[left:]
            left -= len(piece)
            yield piece

    def rest(self) -> Iterator[memoryview]:
        """Everything that is left."""
        while self._chunk or self._more():
            piece, self._chunk = self._chunk, memoryview(b"")
            yield piece

    def finish(self) -> tuple[str, str]:
        """The digest of the decompressed bytes and that of the bytes as they came (empty if not asked for).

        To be called after `rest` was read to its end."""
        self._thread.join()
        came = self._section.hash
        return f"sha256:{self._hash.hexdigest()}", f"sha256:{came.hexdigest()}" if came else ""
