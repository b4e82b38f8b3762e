"""Removing folders of workloads without holding up the event loop: first out of the way (one rename), then in a thread if large."""

from __future__ import annotations

import asyncio
import os
import shutil

from bothy.log import logger

_log = logger("engine")
TRASH = ".trash-"
_FEW = 64


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
    """Whether there are few enough entries to delete them between two other things the loop does (some ten µs each)."""
    left = _FEW
    for _, folders, files in os.walk(folder):
        left -= len(folders) + len(files)
        if left < 0:
            return False
    return True


def delete(folder: str) -> None:
    """Remove a folder and all below it. What can not be removed is logged."""
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        pass
    except OSError as exc:
        _log.error("%s can not be removed: %s", folder, exc)
