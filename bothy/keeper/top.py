"""A table of processes as ps(1) prints it, read from /proc: `-ef` (the default), `aux`, or the columns of `-o`. See proc(5).

Docker runs the host's ps for this; here no program is run, so that host and guest give the same answer. Ids are those inside the
workload where it has an id range of its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from bothy.errors import Invalid

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Entry:
    """One process: numbers as the kernel gives them, `uptime` of the host in seconds, `memory` of the host in bytes."""

    pid: int
    uid: int
    fields: list[str]
    cmdline: str
    uptime: float
    memory: int

    def number(self, index: int) -> int:
        """A field of /proc/PID/stat by its number in proc(5), from 3 on."""
        return int(self.fields[index - 3])

    @property
    def seconds(self) -> float:
        """Processor time."""
        return (self.number(14) + self.number(15)) / _TICKS

    @property
    def age(self) -> float:
        return max(0.0, self.uptime - self.number(22) / _TICKS)


def _terminal(entry: Entry) -> str:
    device = entry.number(7)
    if not device:
        return "?"
    major, minor = os.major(device), os.minor(device)
    return f"pts/{minor + (major - 136) * 256}" if 136 <= major <= 143 else f"{major}:{minor}"


def _clock(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def _begun(entry: Entry) -> str:
    local = time.localtime(time.time() - entry.age)
    return time.strftime("%H:%M" if entry.age < 86400 else "%b%d", local)


def _user(entry: Entry) -> str:
    return "root" if entry.uid == 0 else str(entry.uid)


def _share(entry: Entry) -> float:
    return 100 * entry.seconds / entry.age if entry.age else 0.0


def _resident(entry: Entry) -> int:
    return entry.number(24) * _PAGE


_COLUMNS: dict[str, tuple[str, Callable[[Entry], str]]] = {
    "pid": ("PID", lambda e: str(e.pid)),
    "ppid": ("PPID", lambda e: str(e.number(4))),
    "user": ("USER", _user),
    "uid": ("UID", lambda e: str(e.uid)),
    "uname": ("UID", _user),
    "c": ("C", lambda e: str(int(_share(e)))),
    "pcpu": ("%CPU", lambda e: f"{_share(e):.1f}"),
    "pmem": ("%MEM", lambda e: f"{100 * _resident(e) / e.memory:.1f}"),
    "vsz": ("VSZ", lambda e: str(e.number(23) // 1024)),
    "rss": ("RSS", lambda e: str(_resident(e) // 1024)),
    "tty": ("TTY", _terminal),
    "stat": ("STAT", lambda e: e.fields[0]),
    "stime": ("STIME", _begun),
    "start": ("START", _begun),
    "time": ("TIME", lambda e: _clock(e.seconds)),
    "etime": ("ELAPSED", lambda e: _clock(e.age)),
    "ni": ("NI", lambda e: str(e.number(19))),
    "nlwp": ("NLWP", lambda e: str(e.number(20))),
    "comm": ("COMMAND", lambda e: e.cmdline.split(" ", 1)[0].rsplit("/", 1)[-1]),
    "args": ("COMMAND", lambda e: e.cmdline),
    "full": ("CMD", lambda e: e.cmdline),
}
_ALIASES = {"%cpu": "pcpu", "%mem": "pmem", "cmd": "full", "command": "args", "tt": "tty", "state": "stat", "s": "stat",
            "rsz": "rss", "nice": "ni", "cputime": "time", "euser": "user", "euid": "uid", "ucmd": "comm"}  # fmt: skip
_FULL = ("uname", "pid", "ppid", "c", "stime", "tty", "time", "full")
_BSD = ("user", "pid", "pcpu", "pmem", "vsz", "rss", "tty", "stat", "start", "time", "args")


def columns(args: str) -> list[tuple[str, Callable[[Entry], str]]]:
    """The columns that arguments of ps ask for. Raises Invalid for a column that is not known."""
    words = args.split()
    wanted: list[str] = []
    for index, word in enumerate(words):
        if (word.startswith("-") and word.endswith("o")) or word in ("o", "axo"):
            wanted += words[index + 1].split(",") if index + 1 < len(words) else []
        elif word.startswith(("-o", "-eo")) and len(word) > 3:
            wanted += word.partition("o")[2].split(",")
    if not wanted:
        bsd = any(not word.startswith("-") and "u" in word for word in words)
        return [_COLUMNS[name] for name in (_BSD if bsd else _FULL)]
    result = []
    for column in wanted:
        name, _, title = column.partition("=")
        known = _COLUMNS.get(_ALIASES.get(name.lower(), name.lower()))
        if known is None:
            raise Invalid(f"unknown column {name!r} of ps", hint="known are: " + ", ".join(sorted(_COLUMNS)))
        result.append((title or known[0], known[1]))
    return result


def table(args: str, pids: Iterable[int], *, id_base: int = 0) -> dict[str, Any]:
    """`{"titles": [...], "processes": [[...], ...]}` of those processes that still are; `id_base` is taken from their uids.

    Raises Invalid for a column that is not known.
    """
    wanted = columns(args)
    with open("/proc/uptime", "rb") as file:
        uptime = float(file.read().split()[0])
    memory = os.sysconf("SC_PHYS_PAGES") * _PAGE
    rows = []
    for pid in sorted(pids):
        entry = _entry(pid, id_base, uptime, memory)
        if entry is not None:
            rows.append([show(entry) for _, show in wanted])
    return {"titles": [title for title, _ in wanted], "processes": rows}


def _entry(pid: int, id_base: int, uptime: float, memory: int) -> Entry | None:
    try:
        uid = os.stat(f"/proc/{pid}").st_uid
        stat = _read(f"/proc/{pid}/stat")
        cmdline = _read(f"/proc/{pid}/cmdline")
    except (FileNotFoundError, ProcessLookupError):
        return None
    name, _, rest = stat.partition("(")[2].rpartition(")")
    text = cmdline.rstrip("\0").replace("\0", " ") or f"[{name}]"
    if id_base and id_base <= uid < id_base + 65536:
        uid -= id_base
    return Entry(pid, uid, rest.split(), text, uptime, memory)


def _read(path: str) -> str:
    with open(path, "rb") as file:
        return file.read().decode("utf-8", "replace")
