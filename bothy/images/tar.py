"""A lean tar reader for layers: ustar, GNU and PAX, with sparse files and extended attributes. It reads, and does nothing else.

    for entry in Reader(stream, recipe):      every entry once, in order
        reader.content(entry)                 its bytes as (offset in the file, piece), holes left out

Written because the standard library's tarfile costs more than the system calls that a layer needs. Numbers of the format are
from pax(1p) and GNU tar's manual ("Basic Tar Format", "Storing Sparse Files"); where readers disagree, it does what Go's
archive/tar does, since that is what Docker reads layers with.
"""

from __future__ import annotations

from collections.abc import Iterator

from bothy.images import recipe as recipes
from bothy.images.streams import Damaged, Stream

BLOCK = 512
ZEROS = bytes(BLOCK)
REGULAR, HARDLINK, SYMLINK, CHARACTER, BLOCKDEV, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
CONTIGUOUS, OLD_REGULAR, GNU_SPARSE, GNU_NAME, GNU_LINK, PAX, PAX_GLOBAL, VOLUME = b"7", b"\0", b"S", b"L", b"K", b"x", b"g", b"V"
KNOWN = (REGULAR, HARDLINK, SYMLINK, CHARACTER, BLOCKDEV, DIRECTORY, FIFO)
MAX_EXTENSION = 1 << 20
MAX_SPARSE = 1 << 20
MAX_NUMBER = (1 << 63) - 1
XATTR = b"SCHILY.xattr."


class Entry:
    """One entry. `size` is the bytes of data in the archive, `real_size` that of the file; `mtime` in nanoseconds.

    `sparse` is None, or the (offset, length) of each piece of data in the file.
    """

    __slots__ = ("gid", "link", "major", "minor", "mode", "mtime", "name", "real_size", "size", "sparse", "type", "uid", "xattrs")

    def __init__(self, header: bytes) -> None:
        self.name = _text(header[0:100])
        self.mode = number(header[100:108]) & 0o7777
        self.uid = number(header[108:116])
        self.gid = number(header[116:124])
        self.size = number(header[124:136])
        self.mtime = clamp(number(header[136:148])) * 1_000_000_000
        kind = header[156:157]
        self.type = REGULAR if kind in (OLD_REGULAR, CONTIGUOUS) else kind
        self.link = _text(header[157:257])
        self.major = self.minor = 0
        self.xattrs: dict[bytes, bytes] = {}
        self.sparse: list[tuple[int, int]] | None = None
        self.real_size = self.size
        magic = header[257:265]
        if magic[:5] == b"ustar":
            if kind in (CHARACTER, BLOCKDEV):
                self.major, self.minor = number(header[329:337]), number(header[337:345])
            if magic == b"ustar\x0000" and header[345]:
                self.name = _text(header[345:500]) + b"/" + self.name


def clamp(seconds: int) -> int:
    """A time that every file system and the kernel can be told: years 1697 to 2242."""
    return max(-(1 << 33), min(seconds, 1 << 33))


def _text(field: bytes) -> bytes:
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


class Reader:
    """Reads entries from a stream, and writes down in a recipe what a folder will not keep."""

    def __init__(self, stream: Stream, recipe: recipes.Writer) -> None:
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
                    long_name = _text(data)
                elif entry.type == GNU_LINK:
                    long_link = _text(data)
                elif entry.type == PAX:
                    pax = parse_pax(data)
                continue
            if long_name is not None:
                entry.name = long_name
            if long_link is not None:
                entry.link = long_link
            if pax:
                _apply_pax(entry, pax)
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
        if number(block[148:156]) != sum(block) - sum(block[148:156]) + 256 and not _signed_sum_is_right(block):
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
            entry.real_size = _decimal(pax.get(b"GNU.sparse.realsize", b"0"))
            entry.sparse = self._pax_map()
        elif entry.type == REGULAR and (b"GNU.sparse.map" in pax or b"GNU.sparse.size" in pax):
            entry.real_size = _decimal(pax.get(b"GNU.sparse.size", b"0"))
            numbers = [_decimal(n) for n in pax.get(b"GNU.sparse.map", b"").split(b",") if n]
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
        while not lines or len(lines) < 1 + 2 * _decimal(lines[0]):
            if self._left < BLOCK or len(lines) > 2 * MAX_SPARSE:
                raise Damaged("the map of a sparse file is damaged")
            self._left -= BLOCK
            *whole, rest = (rest + self._take(BLOCK)).split(b"\n")
            lines += whole
        count = _decimal(lines[0])
        return _pairs([_decimal(line) for line in lines[1 : 1 + 2 * count]])

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


def _signed_sum_is_right(block: bytes) -> bool:
    """Some old tars summed signed characters."""
    total = sum(b - 256 if b > 127 else b for b in block[:148] + b" " * 8 + block[156:])
    return number(block[148:156]) == total


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


def _decimal(text: bytes) -> int:
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


def _apply_pax(entry: Entry, pax: dict[bytes, bytes]) -> None:
    """Let the extended header's values overrule the header's. An empty value means: as in the header."""
    entry.name = pax.get(b"GNU.sparse.name") or pax.get(b"path") or entry.name
    entry.link = pax.get(b"linkpath") or entry.link
    if b"\0" in entry.name or b"\0" in entry.link:
        raise Damaged("a name has a zero byte in it")
    if size := pax.get(b"size"):
        entry.size = entry.real_size = _decimal(size)
    if uid := pax.get(b"uid"):
        entry.uid = _decimal(uid)
    if gid := pax.get(b"gid"):
        entry.gid = _decimal(gid)
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
