"""The headers of tar archives: ustar, GNU and PAX. Pure functions over bytes.

Numbers of the format are from pax(1p) and GNU tar's manual ("Basic Tar Format", "Storing Sparse Files"); where readers disagree, it
does what Go's archive/tar does, since that is what Docker reads layers with.
"""

from __future__ import annotations

BLOCK = 512
ZEROS = bytes(BLOCK)
REGULAR, HARDLINK, SYMLINK, CHARACTER, BLOCKDEV, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
CONTIGUOUS, OLD_REGULAR, GNU_SPARSE, GNU_NAME, GNU_LINK, PAX, PAX_GLOBAL, VOLUME = b"7", b"\0", b"S", b"L", b"K", b"x", b"g", b"V"
KNOWN = (REGULAR, HARDLINK, SYMLINK, CHARACTER, BLOCKDEV, DIRECTORY, FIFO)
MAX_EXTENSION = 1 << 20
MAX_NUMBER = (1 << 63) - 1
XATTR = b"SCHILY.xattr."


class Damaged(Exception):
    """The bytes are not what they should be: truncated, undecodable, or nonsense. The message is for people."""


class Entry:
    """One entry. `size` is the bytes of data in the archive, `real_size` that of the file; `mtime` in nanoseconds.

    `sparse` is None, or the (offset, length) of each piece of data in the file.
    """

    __slots__ = ("gid", "link", "major", "minor", "mode", "mtime", "name", "real_size", "size", "sparse", "type", "uid", "xattrs")

    def __init__(self, header: bytes) -> None:
        self.name = text(header[0:100])
        self.mode = number(header[100:108]) & 0o7777
        self.uid = number(header[108:116])
        self.gid = number(header[116:124])
        self.size = number(header[124:136])
        self.mtime = clamp(number(header[136:148])) * 1_000_000_000
        kind = header[156:157]
        self.type = REGULAR if kind in (OLD_REGULAR, CONTIGUOUS) else kind
        self.link = text(header[157:257])
        self.major = self.minor = 0
        self.xattrs: dict[bytes, bytes] = {}
        self.sparse: list[tuple[int, int]] | None = None
        self.real_size = self.size
        magic = header[257:265]
        if magic[:5] == b"ustar":
            if kind in (CHARACTER, BLOCKDEV):
                self.major, self.minor = number(header[329:337]), number(header[337:345])
            if magic == b"ustar\x0000" and header[345]:
                self.name = text(header[345:500]) + b"/" + self.name


def clamp(seconds: int) -> int:
    """A time that every file system and the kernel can be told: years 1697 to 2242."""
    return max(-(1 << 33), min(seconds, 1 << 33))


def text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def number(field: bytes) -> int:
    """An octal or base-256 number. Raises Damaged."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big", signed=False) & ((1 << (8 * len(field) - 1)) - 1)
        if field[0] == 0xFF:
            value -= 1 << (8 * len(field) - 1)
    else:
        digits = field.strip(b" \0")
        if not digits:
            return 0
        if not digits.isdigit():
            digits = digits.partition(b"\0")[0].strip()
        try:
            value = int(digits or b"0", 8)
        except ValueError:
            raise Damaged(f"invalid number {field!r} in a header") from None
    if abs(value) > MAX_NUMBER:
        raise Damaged("number out of range in a header")
    return value


def checksum_is_right(block: bytes) -> bool:
    """Whether a header block is one. Some old tars summed signed characters. Raises Damaged."""
    told = number(block[148:156])
    total = sum(block) - sum(block[148:156]) + 8 * 32
    return told == total or told == total - 256 * sum(byte > 127 for byte in block[:148] + block[156:])


def decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > 19:
        raise Damaged(f"invalid number {text[:20]!r} in an extended header")
    return int(text)


def parse_pax(data: bytes) -> dict[bytes, bytes]:
    """The records of a PAX extended header: `length key=value\\n`. The offset and length pairs of PAX 0.0 sparse files become
    one GNU.sparse.map. Raises Damaged."""
    records: dict[bytes, bytes] = {}
    pieces: list[bytes] = []
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        digits = data[at:space] if space > 0 else b""
        length = int(digits) if digits.isdigit() else 0
        record = data[space + 1 : at + length]
        if length < 5 or at + length > len(data) or not record.endswith(b"\n") or b"=" not in record:
            raise Damaged("an extended header is damaged")
        key, _, value = record[:-1].partition(b"=")
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            pieces.append(value)
        else:
            records[key] = value
        at += length
    if pieces:
        records[b"GNU.sparse.map"] = b",".join(pieces)
    return records


def apply_pax(entry: Entry, pax: dict[bytes, bytes]) -> None:
    """Let the extended header's values overrule the header's. An empty value means: as in the header."""
    entry.name = pax.get(b"GNU.sparse.name") or pax.get(b"path") or entry.name
    entry.link = pax.get(b"linkpath") or entry.link
    if b"\0" in entry.name or b"\0" in entry.link:
        raise Damaged("a name has a zero byte in it")
    if size := pax.get(b"size"):
        entry.size = entry.real_size = decimal(size)
    if uid := pax.get(b"uid"):
        entry.uid = decimal(uid)
    if gid := pax.get(b"gid"):
        entry.gid = decimal(gid)
    if mtime := pax.get(b"mtime"):
        entry.mtime = nanoseconds(mtime)
    for key, value in pax.items():
        if key.startswith(XATTR):
            entry.xattrs[key[len(XATTR) :]] = value


def nanoseconds(text: bytes) -> int:
    """A PAX time (`-12.5`) in nanoseconds. Raises Damaged."""
    seconds, _, fraction = text.partition(b".")
    sign = -1 if seconds.startswith(b"-") else 1
    whole = seconds.lstrip(b"+-")
    if not (whole or b"0").isdigit() or not (fraction or b"0").isdigit() or len(whole) > 11:
        raise Damaged(f"invalid time {text[:30]!r} in an extended header")
    return sign * (clamp(int(whole or b"0")) * 1_000_000_000 + int(fraction[:9].ljust(9, b"0")))


def show(name: bytes) -> str:
    """A name from an archive, quoted for a message."""
    return repr(name[:200].decode("utf-8", "replace"))
