"""Work that takes a while (images, templates, disks) in a thread, and its memory given back afterwards.

glibc keeps what a thread has freed at the top of that thread's arena; after making machines' boot files that were 35 MB for ever.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
_LONG = 0.3
_libc = ctypes.CDLL(None)
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
_LARGE = 1 << 20


def tame_allocator() -> None:
    """One arena for all threads, and pages of their own for large pieces, which go back when they are freed (mallopt(3)).

    To be called once, before there are threads.
    """
    _libc.mallopt(_M_ARENA_MAX, 1)
    _libc.mallopt(_M_MMAP_THRESHOLD, _LARGE)


async def heavy(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of `work`, called in a thread; if it took long, free memory goes back to the kernel (malloc_trim(3))."""

    def run() -> T:
        begin = time.monotonic()
        try:
            return work(*args, **kwargs)
        finally:
            if time.monotonic() - begin > _LONG:
                gc.collect()
                _libc.malloc_trim(0)

    return await asyncio.to_thread(run)
