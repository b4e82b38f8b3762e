"""Bytes that come in pieces, as the reader wants them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bothy.tar.headers import Damaged


class Chunks:
    """`bothy.tar.reader.Stream` of pieces of any size. What making the pieces raises is raised by each method."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._coming = iter(pieces)
        self._chunk = memoryview(b"")

    def take(self, size: int) -> bytes:
        """Exactly `size` bytes; empty at the very end. Raises Damaged if it ends within."""
        if len(self._chunk) >= size:
            data, self._chunk = bytes(self._chunk[:size]), self._chunk[size:]
            return data
        return b"".join(self._pieces(size, may_be_empty=True))

    def pieces(self, size: int) -> Iterator[memoryview]:
        """`size` bytes in pieces as they come. Raises Damaged if it ends within."""
        return self._pieces(size, may_be_empty=False)

    def rest(self) -> Iterator[memoryview]:
        """Everything that is left."""
        while self._chunk or self._more():
            piece, self._chunk = self._chunk, memoryview(b"")
            yield piece

    def _pieces(self, size: int, *, may_be_empty: bool) -> Iterator[memoryview]:
        left = size
        while left:
            if not self._chunk and not self._more():
                if may_be_empty and left == size:
                    return
                raise Damaged("archive ends too early")
            piece, self._chunk = self._chunk[:left], self._chunk[left:]
            left -= len(piece)
            yield piece

    def _more(self) -> bool:
        """Have a chunk that is not empty; False at the end."""
        for data in self._coming:
            if data:
                self._chunk = memoryview(data)
                return True
        return False
