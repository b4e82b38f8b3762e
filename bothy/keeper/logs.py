"""The log of a workload: Docker's json-file format, rotated by size, old files gzipped.

    container.log          one JSON object a line: {"log":"text\\n","stream":"stdout","time":"2024-05-01T10:00:00.123456789Z"}
    container.log.1        the file before (until it has been compressed)
    container.log.2.gz     older ones; `max_files` in all, the current one counted

A line longer than 16 KiB is written in pieces, only the last of which has the newline. A line is written when it is complete,
or when its stream ends. Bytes that are not UTF-8 become U+FFFD, as in Docker. Compression is done in steps between other events.
A file that can not be written (disk full) loses those lines, never the program.
"""

from __future__ import annotations

import codecs
import json.encoder
import os
import sys
import time
import zlib

from bothy.keeper.exits import stamp
from bothy.keeper.loop import Loop
from bothy.keeper.model import LogPlan

PARTIAL = 16 * 1024
_STEP = 128 * 1024
_STREAMS = {1: '","stream":"stdout","time":"', 2: '","stream":"stderr","time":"'}
_quote = json.encoder.encode_basestring


def _replace_one(error: UnicodeError) -> tuple[str, int]:
    """One U+FFFD for each bad byte, as Go decodes (Python's own handler makes one of several)."""
    assert isinstance(error, UnicodeDecodeError)
    return "\ufffd", error.start + 1


codecs.register_error("bothy-each", _replace_one)


def entry(text: str, which: int, moment: str) -> str:
    """One line of the file."""
    return f'{{"log":{_quote(text)[:-1]}{_STREAMS[which]}{moment}"}}\n'


def pieces(line: bytes) -> list[bytes]:
    """A line cut after at most PARTIAL bytes each, never inside a character of valid UTF-8."""
    result = []
    while len(line) > PARTIAL:
        cut = PARTIAL
        while cut > PARTIAL - 4 and line[cut] & 0xC0 == 0x80:
            cut -= 1
        if line[cut] & 0xC0 == 0x80:
            cut = PARTIAL
        result.append(line[:cut])
        line = line[cut:]
    result.append(line)
    return result


class Log:
    """The log file that the plan names. The constructor raises OSError when it can not be opened; afterwards nothing raises."""

    def __init__(self, loop: Loop, plan: LogPlan) -> None:
        self._loop = loop
        self._plan = plan
        self._partial: dict[int, bytes] = {}
        self._compressor: Compressor | None = None
        self._complained = False
        self._fd = os.open(plan.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        self._size = _whole_lines(self._fd)

    def feed(self, which: int, data: bytes) -> None:
        """Log output; an unfinished line is kept until it is finished or too long."""
        data = self._partial.pop(which, b"") + data
        end = data.rfind(b"\n") + 1
        lines = data[:end].splitlines(keepends=True) if b"\r" not in data[:end] else _lines(data[:end])
        rest = data[end:]
        if len(rest) >= PARTIAL:
            *more, rest = pieces(rest)
            lines += more
        if rest:
            self._partial[which] = rest
        if lines:
            self._write(which, lines)

    def finish(self, which: int) -> None:
        """That stream has ended: write its unfinished line."""
        rest = self._partial.pop(which, b"")
        if rest:
            self._write(which, [rest])

    def close(self) -> None:
        """Close the file. A compression under way is given up, the file stays as it was."""
        if self._compressor is not None:
            self._compressor.give_up()
            self._compressor = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _write(self, which: int, lines: list[bytes]) -> None:
        moment = stamp(time.time_ns())
        entries = []
        for line in lines:
            for piece in pieces(line) if len(line) > PARTIAL else (line,):
                entries.append(entry(piece.decode("utf-8", "bothy-each"), which, moment))
        data = _escape("".join(entries)).encode("utf-8")
        while limit := self._plan.max_size:
            if self._size + len(data) <= limit:
                break
            fits = data.rfind(b"\n", 0, max(0, limit - self._size)) + 1
            if not fits and not self._size:
                fits = data.find(b"\n") + 1  # one entry that is larger than a file may be
            self._append(data[:fits])
            data = data[fits:]
            if not data:
                return
            self._rotate()
            if self._size:
                break  # it could not: better a file that is too large than lines lost
        self._append(data)

    def _append(self, data: bytes) -> None:
        try:
            done = 0
            while done < len(data):
                done += os.write(self._fd, data[done:])
            self._size += len(data)
        except OSError as exc:
            self._complain(exc)
            try:
                os.ftruncate(self._fd, self._size)
            except OSError:
                pass

    def _rotate(self) -> None:
        """`log` becomes `log.1`, and so on; what is too old goes."""
        path, keep = self._plan.path, self._plan.max_files
        if self._compressor is not None:
            self._compressor.complete()
            self._compressor = None
        try:
            if keep < 2:
                os.ftruncate(self._fd, 0)
                self._size = 0
                return
            for ending in ("", ".gz"):
                _remove(f"{path}.{keep - 1}{ending}")
                for number in range(keep - 2, 0, -1):
                    _rename(f"{path}.{number}{ending}", f"{path}.{number + 1}{ending}")
            os.rename(path, f"{path}.1")
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        except OSError as exc:
            self._complain(exc)
            return
        os.close(self._fd)
        self._fd, self._size = fd, 0
        if self._plan.compress:
            self._compress(f"{path}.1")

    def _compress(self, path: str) -> None:
        try:
            self._compressor = Compressor(path)
        except OSError as exc:
            self._complain(exc)
            return
        self._loop.later(0, self._compress_more)

    def _compress_more(self) -> None:
        if self._compressor is None:
            return
        if self._compressor.step():
            self._loop.later(0, self._compress_more)
        else:
            self._compressor = None

    def _complain(self, exc: OSError) -> None:
        if not self._complained:
            self._complained = True
            print(f"bothy-keeper: log {self._plan.path!r}: {exc.strerror}", file=sys.stderr, flush=True)


class Compressor:
    """`path` to `path`.gz, a step at a time; the gzipped file appears whole, then the plain one goes."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._source = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            self._target = os.open(f"{path}.tmp", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        except OSError:
            os.close(self._source)
            raise
        self._deflate = zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS)

    def step(self) -> bool:
        """Compress a little; whether there is more to do. What goes wrong leaves the plain file."""
        try:
            data = os.read(self._source, _STEP)
            _write_all(self._target, self._deflate.compress(data) if data else self._deflate.flush())
            if data:
                return True
            os.rename(f"{self._path}.tmp", f"{self._path}.gz")
            os.unlink(self._path)
        except OSError:
            self.give_up()
            return False
        self._close()
        return False

    def complete(self) -> None:
        """Do all the rest now."""
        while self.step():
            pass

    def give_up(self) -> None:
        """Stop; the plain file stays."""
        self._close()
        _remove(f"{self._path}.tmp")

    def _close(self) -> None:
        os.close(self._source)
        os.close(self._target)


def _escape(text: str) -> str:
    """What Go's JSON escapes for the sake of HTML and JavaScript; the frame of an entry has none of it."""
    for character in "<>&\u2028\u2029":
        if character in text:
            text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _lines(data: bytes) -> list[bytes]:
    """`splitlines` that ends lines at newlines only, for data that ends with one."""
    return [line + b"\n" for line in data[:-1].split(b"\n")]


def _whole_lines(fd: int) -> int:
    """The size of a log that is opened again; the beginning of a line that a killed keeper left at its end is cut off."""
    size = end = os.fstat(fd).st_size
    while end:
        start = max(0, end - _STEP)
        newline = os.pread(fd, end - start, start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end < size:
        os.ftruncate(fd, end)
    return end


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _rename(source: str, target: str) -> None:
    try:
        os.rename(source, target)
    except FileNotFoundError:
        pass
