"""The first bytes of compressed data, by which its compression is told: never by a file's name or media type."""

from __future__ import annotations

GZIP, ZSTD, XZ, BZIP2 = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\x00", b"BZh"
ENOUGH = 6  # bytes that tell


def is_compressed(head: bytes) -> bool:
    """Whether that is the beginning of gzip, zstd, xz or bzip2."""
    return head.startswith((GZIP, ZSTD, XZ, BZIP2))
