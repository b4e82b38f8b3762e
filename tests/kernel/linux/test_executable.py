"""The interpreter on a read-only mount: who gets hold of it by /proc/<pid>/exe can not write to it."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bothy.linux import executable, mounts, syscalls


def test_python_runs_from_it_and_finds_itself() -> None:
    fd = executable.sealed()
    try:
        code = "import sys, json; print(sys.executable)"
        argv = [sys.executable, "-I", "-S", "-c", code]
        path = f"/proc/{os.getpid()}/fd/{fd}"
        assert subprocess.run(argv, executable=path, capture_output=True, text=True, check=True).stdout.strip() == sys.executable
    finally:
        os.close(fd)


@pytest.mark.parametrize("sealed", [True, False])
def test_a_door_that_was_held_open_does_not_lead_to_the_file(tmp_path: Path, *, sealed: bool) -> None:
    """With a copy of `sleep`: its /proc/<pid>/exe is kept open until it has ended, then opened again for writing."""
    program = tmp_path / "program"
    shutil.copy("/bin/sleep", program)
    tree = mounts.clone_tree(syscalls.AT_FDCWD, str(program))
    if sealed:
        mounts.set_attributes(tree, attr_set=syscalls.MOUNT_ATTR_RDONLY)
    process = subprocess.Popen(["sleep", "60"], executable=f"/proc/{os.getpid()}/fd/{tree}")
    door = os.open(f"/proc/{process.pid}/exe", os.O_PATH)
    process.kill()
    process.wait()
    try:
        os.close(os.open(f"/proc/self/fd/{door}", os.O_WRONLY))
        failure = 0
    except OSError as exc:
        failure = exc.errno or 0
    finally:
        os.close(door)
        os.close(tree)
    assert failure == (errno.EROFS if sealed else 0)
