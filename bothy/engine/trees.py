"""Removing folders of workloads without holding up the event loop: first out of the way (one rename), then in a thread if large."""

from __future__ import annotations

import asyncio
import os
import shutil

from bothy.log import logger

_log = logger("engine")
TRASH = ".trash-"
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
        shutil.rmtree(trash, ignore_errors=True)
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
    return entries >= 0 and blocks >= 0


def delete(folder: str) -> None:
    """Remove a folder and all below it. What can not be removed is logged."""
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        pass
    except OSError as exc:
        _log.error("%s can not be removed: %s", folder, exc)
