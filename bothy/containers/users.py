"""Who a program runs as: Docker's `--user` words looked up in the root's own /etc/passwd and /etc/group.

The files are a stranger's: read through `mounts.open_in_root`, only if regular, at most a megabyte.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field

from bothy.errors import StageError
from bothy.linux import mounts
from bothy.oci.runtime import User

_LIMIT = 1 << 20
_MAX_ID = 0x7FFFFFFF


@dataclass(frozen=True)
class Identity:
    """Ids as the container sees them. `home` is where HOME points if nothing else was said."""

    uid: int = 0
    gid: int = 0
    groups: list[int] = field(default_factory=list)
    home: str = "/"


def read_in_root(root: int, path: str) -> str:
    """The text of a regular file inside `root`; empty if it is missing or something else."""
    try:
        fd = mounts.open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return ""
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return ""
        return os.read(fd, _LIMIT).decode(errors="surrogateescape")
    finally:
        os.close(fd)


def identity(root: int, user: User) -> Identity:
    """The identity that `user` means inside `root`. Raises StageError (stage `user`) for a name or group that is not there."""
    return lookup(user, lambda path: read_in_root(root, path))


def lookup(user: User, read: Callable[[str], str]) -> Identity:
    """`identity`, with the files read by `read`.

    `username` is `name`, `uid`, `name:group`, `uid:gid` or empty, which means the numbers beside it. Numbers need not be in the
    files. Without a group the user's own and those that list the user are taken; a group given means just that one. Additional
    groups are added to either.
    """
    name, _, group = user.username.partition(":")
    wanted = name or str(user.uid)
    entry = _passwd(read("/etc/passwd"), wanted)
    if entry:
        login, uid, gid, home = entry
    else:
        login, uid, gid, home = "", _number(wanted), 0, "/"
        if uid < 0:
            raise StageError("user", f"unable to find user {name}: no matching entries in passwd file", path=name)
    if not user.username and user.gid:
        gid = user.gid
    groups = set(user.additional_gids)
    if group:
        gid = _group(read("/etc/group"), group)
    elif login:
        groups.update(_memberships(read("/etc/group"), login))
    if user.additional_groups:
        known = read("/etc/group")
        groups.update(_group(known, wanted) for wanted in user.additional_groups)
    return Identity(uid, gid, sorted(groups), home or "/")


def _number(text: str) -> int:
    """A decimal id, -1 if it is none."""
    if not (text.isascii() and text.isdecimal()):
        return -1
    if int(text) > _MAX_ID:
        raise StageError("user", f"uids and gids must be in range 0-{_MAX_ID}", errno=22, path=text)
    return int(text)


def _passwd(text: str, wanted: str) -> tuple[str, int, int, str] | None:
    """(name, uid, gid, home) of the first line whose name or uid is `wanted`."""
    number = _number(wanted)
    for line in text.split("\n"):
        parts = line.strip().split(":")
        if len(parts) < 4 or line.startswith("#"):
            continue
        uid, gid = _number(parts[2]), _number(parts[3])
        if uid >= 0 and gid >= 0 and (parts[0] == wanted or uid == number):
            return parts[0], uid, gid, parts[5] if len(parts) > 5 else "/"
    return None


def _groups(text: str) -> list[tuple[str, int, list[str]]]:
    found = []
    for line in text.split("\n"):
        parts = line.strip().split(":")
        if len(parts) >= 3 and parts[2].isascii() and parts[2].isdecimal() and int(parts[2]) <= _MAX_ID:
            found.append((parts[0], int(parts[2]), parts[3].split(",") if len(parts) > 3 else []))
    return found


def _group(text: str, wanted: str) -> int:
    number = _number(wanted)
    for name, gid, _ in _groups(text):
        if name == wanted or gid == number:
            return gid
    if number < 0:
        raise StageError("user", f"unable to find group {wanted}: no matching entries in group file", path=wanted)
    return number


def _memberships(text: str, login: str) -> list[int]:
    return [gid for _, gid, members in _groups(text) if login in members]
