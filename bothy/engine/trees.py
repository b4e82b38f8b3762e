"""Removing folders of workloads without holding up the event loop: first out of the way (one rename), then in a thread if large."""

from __future__ import annotations

import asyncio
import errno
import os
import stat

from bothy.log import logger

_log = logger("engine")
TRASH = ".trash-"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FEW = 64
_LITTLE = 512  # blocks of 512 bytes


def discard(folder: str) -> str:
    """Rename a folder away, atomically; the new name, or empty where there was none."""
    parent, name = os.path.split(folder)
    trash = os.path.join(parent, TRASH + name)
    try:
        os.rename(folder, trash)
    except FileNotFoundError:
        return ""
    except OSError:
        # The trash of an earlier try is in the way: both go.
        delete(trash)
        os.rename(folder, trash)
    return trash


async def empty(trash: str) -> None:
    """Remove a folder for good. What can not be removed is logged: the next start of the engine tries again."""
    if not trash:
        return
    if _is_small(trash):
        delete(trash)
    else:
        await asyncio.to_thread(delete, trash)


def _is_small(folder: str) -> bool:
    """Whether there is so little that it can be deleted between two other things the loop does (some ten µs an entry)."""
    entries, blocks, todo = _FEW, _LITTLE, [folder]
    while todo and entries >= 0 and blocks >= 0:
        try:
            with os.scandir(todo.pop()) as found:
                for entry in found:
                    entries -= 1
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(entry.path)
                    else:
                        blocks -= entry.stat(follow_symlinks=False).st_blocks
        except FileNotFoundError:
            continue
        except OSError:
            return False
    return entries >= 0 and blocks >= 0


def delete(folder: str) -> None:
    """Remove a folder and all below it. What can not be removed is logged."""
    try:
        _delete(folder)
    except FileNotFoundError:
        pass
    except OSError as exc:
        _log.error("%s can not be removed: %s", folder, exc)


def _delete(folder: str) -> None:
    """Remove it however deep it is: folders in it are moved up, one level at a time, so that there is nothing to descend into."""
    top = os.open(folder, _FOLDER)
    try:
        moved = 0
        while names := os.listdir(top):
            for name in names:
                if not _is_folder(top, name):
                    os.unlink(name, dir_fd=top)
                    continue
                fd = os.open(name, _FOLDER, dir_fd=top)
                try:
                    for inner in os.listdir(fd):
                        if _is_folder(fd, inner):
                            moved = _move_up(fd, inner, top, moved)
                        else:
                            os.unlink(inner, dir_fd=fd)
                finally:
                    os.close(fd)
                os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)
    os.rmdir(folder)


def _is_folder(fd: int, name: str) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode)


def _move_up(fd: int, name: str, top: int, number: int) -> int:
    """Rename a folder into `top`, with a number that is free there; the next number."""
    while True:
        number += 1
        try:
            os.rename(name, f".moved-{number}", src_dir_fd=fd, dst_dir_fd=top)
            return number
        except OSError as exc:
            if exc.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise


def size(folder: str) -> int:
    """Bytes on disk of what is below a folder; links are not followed, and what can not be looked at is passed over."""
    total, todo = 0, [folder]
    while todo:
        try:
            with os.scandir(todo.pop()) as found:
                for entry in found:
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_blocks * 512
        except OSError:
            continue
    return total
