"""How the exact tar of a layer is put together again from the layer's unpacked folder.

A layer's identity is the digest of its tar, so whoever saves an image must give back the very bytes that came. Keeping the tar
beside the unpacked folder would double the disk space; the recipe keeps only what the folder does not have: headers, padding, and
the order of things. (The idea is vbatts/tar-split's, which Docker uses.)

    zstd( record* )     record =  R <u32 length> bytes          these bytes
                               |  F <u64 size> <u16 length> path   the content of this file of the folder

A layer in which an entry replaces the content of an earlier one can not be told like this; its recipe has the contents in it
(only R records).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

import zstandard

_RAW = struct.Struct("<cI")
_FILE = struct.Struct("<cQH")
FLUSH = 256 * 1024
MAX_RAW = 1 << 20


class Writer:
    """Records what passes. `close` must be called for the recipe to be whole."""

    def __init__(self, out: BinaryIO) -> None:
        self._sink = zstandard.ZstdCompressor(level=1).stream_writer(out, closefd=False)
        self._raw = bytearray()

    def raw(self, data: bytes | memoryview) -> None:
        self._raw += data
        if len(self._raw) >= FLUSH:
            self._flush()

    def file(self, path: bytes, size: int) -> None:
        self._flush()
        self._sink.write(_FILE.pack(b"F", size, len(path)) + path)

    def _flush(self) -> None:
        data, self._raw = self._raw, bytearray()
        for start in range(0, len(data), MAX_RAW):
            part = data[start : start + MAX_RAW]
            self._sink.write(_RAW.pack(b"R", len(part)))
            self._sink.write(part)

    def close(self) -> None:
        self._flush()
        self._sink.flush(zstandard.FLUSH_FRAME)


def records(source: BinaryIO) -> Iterator[bytes | tuple[bytes, int]]:
    """The recipe's records in order: bytes, or (path, size) of a file. Raises ValueError for a damaged recipe."""
    reader = zstandard.ZstdDecompressor().stream_reader(source, closefd=False)

    def exactly(size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = reader.read(size - len(data))
            if not more:
                raise ValueError("recipe ends too early")
            data += more
        return data

    while True:
        kind = reader.read(1)
        if not kind:
            return
        if kind == b"R":
            yield exactly(_RAW.unpack(kind + exactly(_RAW.size - 1))[1])
        elif kind == b"F":
            _, size, length = _FILE.unpack(kind + exactly(_FILE.size - 1))
            yield exactly(length), size
        else:
            raise ValueError("recipe has an unknown record")
