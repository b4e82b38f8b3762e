"""The parts of the last stage that need no privilege."""

from __future__ import annotations

import os
import resource

import pytest

from bothy.containers import process
from bothy.containers.users import Identity
from bothy.errors import StageError
from bothy.oci.runtime import Process, Rlimit


def test_environment_last_one_counts_and_home_is_filled_in() -> None:
    env = process.environment(Process(["x"], env=["A=1", "A=2", "B=x=y", "C"]), Identity(home="/home/ann"))
    assert env == {b"A": b"2", b"B": b"x=y", b"HOME": b"/home/ann"}


def test_home_that_was_given_stays() -> None:
    assert process.environment(Process(["x"], env=["HOME=/data"]), Identity(home="/root"))[b"HOME"] == b"/data"


@pytest.mark.parametrize("limits", [(10, 20), (20, 20)])
def test_rlimits_within_ours_are_set_without_a_word(limits: tuple[int, int]) -> None:
    assert in_child(lambda: (process.set_rlimits([Rlimit("RLIMIT_CORE", *limits)]), resource.getrlimit(resource.RLIMIT_CORE))) == (
        f"([], {limits})"
    )


def test_unknown_limits_are_errors() -> None:
    for name in ("RLIMIT_LUCK", "NOFILE", "getrlimit", "RLIM_INFINITY"):
        with pytest.raises(StageError, match="unknown limit"):
            process.set_rlimits([Rlimit(name, 1, 1)])


def test_ignored_signals_are_default_again() -> None:
    import signal

    def body() -> object:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        process.reset_signals()
        with open("/proc/self/status") as file:
            status = file.read()
        return [line.split()[1].strip("0") for line in status.splitlines() if line.startswith(("SigIgn", "SigBlk"))]

    assert in_child(body) == "['', '']"


@pytest.mark.parametrize(
    ("program", "errno", "message"),
    [
        ("no-such-program", 2, "executable file not found in \\$PATH"),
        ("/no/such/program", 2, "no such file or directory"),
        ("/etc/passwd", 13, "permission denied"),
        ("/etc", 13, "is a directory"),
        ("/etc/passwd/x", 20, "not a directory"),
    ],
)
def test_what_can_not_be_run(program: str, errno: int, message: str) -> None:
    with pytest.raises(StageError, match=message) as caught:
        process.execute(Process([program], env=["PATH=/usr/bin:/nowhere"]), Identity())
    assert (caught.value.stage, caught.value.errno) == ("exec", errno)


def test_no_command() -> None:
    with pytest.raises(StageError, match="no command"):
        process.execute(Process([]), Identity())


def in_child(body: object) -> str:
    """What `body` says in a child, as text: limits and signals can not be put back."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write, repr(body()).encode())  # type: ignore[operator]
        except BaseException as exc:
            os.write(write, repr(exc).encode())
        os._exit(0)
    os.close(write)
    with open(read) as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    return text
