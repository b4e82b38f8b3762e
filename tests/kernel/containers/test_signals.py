"""Signal dispositions that a program would inherit."""

from __future__ import annotations

import subprocess
import sys

IGNORE_ALL_THEN_RESET = """
import ctypes, platform
from bothy.containers import process
number = {"x86_64": 13}.get(platform.machine(), 134)
ignore = (1).to_bytes(8, "little") + bytes(24)
for signal in range(1, 65):
    ctypes.CDLL(None).syscall(number, signal, ignore, None, 8)
ignored = lambda: next(int(l.split()[1], 16) for l in open("/proc/self/status") if l.startswith("SigIgn"))
print(f"{ignored():x}")
process.reset_signals()
print(f"{ignored():x}")
"""


def test_every_ignored_signal_is_reset_also_those_of_the_c_library() -> None:
    """32 and 33 are glibc's own: make(1) and others start programs with them ignored, and signal(2) can not undo it."""
    done = subprocess.run([sys.executable, "-c", IGNORE_ALL_THEN_RESET], capture_output=True, text=True, check=True)
    before, after = (int(line, 16) for line in done.stdout.split())
    assert before >> 31 & 0b11 == 0b11
    assert after == 0
