"""How fast this host's time stamp counter ticks, which is what an emulated guest reads as its own.

A guest kernel that has to find out by itself compares with an emulated timer chip, and on a busy host it fails (it then waits for
ticks that never come) or gets a wrong number. Ten bytes of machine code read the counter here: rdtsc; shl rdx,32; or rax,rdx; ret.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import time

_RDTSC = bytes.fromhex("0f3148c1e2204809d0c3")
_INTERVAL = 0.05
_TRIES = 5


def measure() -> int:
    """The frequency in kHz, to some parts in a million; takes 50 ms. 0 where there is no such counter."""
    if os.uname().machine != "x86_64":
        return 0
    with mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as page:
        page.write(_RDTSC)
        address = ctypes.c_char.from_buffer(page)
        read = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(address))
        try:
            began, ended = _sample(read), None
            time.sleep(_INTERVAL)
            ended = _sample(read)
        finally:
            del read, address
    return round((ended[1] - began[1]) * 1_000_000 / (ended[0] - began[0]))


def _sample(read: object) -> tuple[int, int]:
    """(nanoseconds, ticks) read close together: the tightest of some tries."""
    assert callable(read)
    best: tuple[int, int, int] | None = None
    for _ in range(_TRIES):
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        ticks = read()
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        if best is None or after - before < best[0]:
            best = (after - before, (before + after) // 2, ticks)
    assert best is not None
    return best[1], best[2]
