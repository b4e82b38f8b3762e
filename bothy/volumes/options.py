"""Driver options of a volume (`--opt`), checked and turned into a call of mount(2), as data.

    type=none,o=bind,device=/srv/data             a folder of the host
    type=tmpfs,o=size=64m,uid=1000                memory, gone when nobody uses it
    type=nfs,o=addr=server,rw,device=:/export     words are passed on, `addr` as a number
    type=ext4,device=/dev/sdb1                    any file system that the kernel has
    size=10G                                      a quota: the volume is a disk image of that size

Rules and words of errors: moby volume/local/local_unix.go. One is added: a tmpfs needs no `device`.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from bothy.errors import Broken, Invalid
from bothy.linux import mounts
from bothy.linux import syscalls as sc

KNOWN = ("type", "o", "device", "size")
SMALLEST = 8 << 20
LARGEST = 16 << 40  # as large as an ext4 of 4 KiB blocks without 64bit can be
_NEEDS = {"device": ("type",), "type": ("device",), "o": ("device", "type")}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgtp]?)(?:i?b)?", re.IGNORECASE)
_RESOLVED = ("nfs", "nfs4", "cifs")
_ADDRESS = re.compile(r"(?:^|,)addr=([^,]*)")
_PASSWORD = re.compile(r"(^|,)password=[^,]*")


@dataclass(frozen=True)
class Call:
    """What mount(2) is called with, and a propagation to set afterwards (0: leave it)."""

    source: str
    fstype: str
    flags: int = 0
    data: str = ""
    propagation: int = 0

    def describe(self, target: str) -> str:
        """The call as Docker tells it when it fails; without a password that is among the words."""
        text = f"mount {self.source}:{target}"
        if self.flags:
            text += f", flags: {self.flags:#x}"
        if self.data:
            text += ", data: " + _PASSWORD.sub(r"\1password=********", self.data)
        return text

    def make(self, target: str) -> None:
        """Mount it at the folder `target`. Raises OSError; then nothing is mounted."""
        sc.mount(self.source, target, self.fstype, self.flags, self.data or None)
        try:
            # A bind takes other flags only when it is mounted again.
            if self.flags & sc.MS_BIND and self.flags & ~(sc.MS_BIND | sc.MS_REC):
                sc.mount(None, target, None, (self.flags & ~sc.MS_REC) | sc.MS_REMOUNT)
            if self.propagation:
                sc.mount(None, target, None, self.propagation)
        except OSError:
            sc.umount2(target, sc.MNT_DETACH)
            raise


def check(options: Mapping[str, str]) -> None:
    """Raises Invalid for options that can not be, in Docker's words."""
    for name in options:
        if name not in KNOWN:
            raise Invalid(f'invalid option: "{name}"', hint=f"known options: {', '.join(KNOWN)}")
    for name, needed in _NEEDS.items():
        for other in needed if name in options else ():
            if not options.get(other) and not (other == "device" and options.get("type") == "tmpfs"):
                raise Invalid(f'missing required option: "{other}"')
    if "size" in options:
        if options.get("type"):
            raise Invalid("option size is a quota of a plain volume, not for one of a type", hint="for a tmpfs: --opt o=size=…")
        size(options)


def size(options: Mapping[str, str]) -> int:
    """The quota in bytes, a whole number of MiB; 0 for none. Raises Invalid."""
    text = options.get("size", "")
    return size_of(text) if text else 0


def size_of(text: str) -> int:
    """Bytes of `10G`, `1.5g`, `64mb`; rounded up to MiB. Raises Invalid."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise Invalid(f"invalid size: '{text}'", hint="a number and k, m, g or t: size=10G")
    number = int(float(match[1]) * 1024 ** " kmgtp".index(match[2].lower() or " "))
    if not SMALLEST <= number <= LARGEST:
        raise Invalid(f"invalid size: '{text}'", hint="8m is the least, 16t the most")
    return -(-number // (1 << 20)) << 20


def call(options: Mapping[str, str]) -> Call:
    """The call that mounts a volume of these options. Raises Broken when the address of a server can not be found (this may take
    as long as the resolver does)."""
    kind, words = options.get("type", ""), options.get("o", "")
    if kind in _RESOLVED:
        words = _with_number(words)
    parsed = mounts.parse_options(words.split(","))
    return Call(options.get("device") or kind, kind, parsed.flags, ",".join(parsed.data), parsed.propagation)


def _with_number(words: str) -> str:
    """The words with `addr=name` as `addr=number`, which is what the kernel takes."""
    match = _ADDRESS.search(words)
    name = match[1] if match else ""
    if not match or not name:
        return words
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        raise Broken(f"error resolving passed in network volume address: lookup {name}: {getattr(exc, 'strerror', exc)}") from exc
    number = str(found[0][4][0])
    return words[: match.start(1)] + number + words[match.end(1) :]


def failure(options: Call, target: str, exc: OSError) -> Broken:
    """What is said when mount(2) refuses."""
    reason = os.strerror(exc.errno or 0).lower()
    hints = {
        19: f"this kernel has no file system {options.fstype!r}",
        2: f"{options.source} is not there",
        111: "the server refuses connections",
        110: "the server does not answer",
    }
    message = f"error while mounting volume '{target}': failed to mount local volume: {options.describe(target)}: {reason}"
    return Broken(message, hint=hints.get(exc.errno or 0, ""), errno=exc.errno or 0)
