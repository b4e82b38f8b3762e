"""An engine of its own for a test session: the real CLI, the real daemon, a root and a run folder that nobody else uses."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bothy.paths import Paths

REPOSITORY = Path(__file__).resolve().parents[2]
BOTHY = Path(sys.executable).parent / "bothy"


@dataclass(frozen=True)
class Result:
    """What one command did: exit code, stdout and stderr as text."""

    code: int
    out: str
    err: str

    def ok(self) -> Result:
        """Itself, if the command succeeded; fails the test with all that it printed if not."""
        assert self.code == 0, f"exit code {self.code}\nstdout: {self.out}\nstderr: {self.err}"
        return self

    @property
    def line(self) -> str:
        return self.out.strip()


class TestEngine:
    """One engine: where it lives and how to talk to it."""

    __test__ = False

    def __init__(self, root: Path, run: Path, extra: dict[str, str] | None = None) -> None:
        self.root = root
        self.run_folder = run
        self.env = {**os.environ, "BOTHY_ROOT": str(root), "BOTHY_RUN": str(run), "BOTHY_SPARES": "0", **(extra or {})}

    def command(self, *args: str) -> list[str]:
        return [str(BOTHY), *args]

    def __call__(self, *args: str, stdin: str | bytes | None = None, timeout: float = 120) -> Result:
        """Run one bothy command to its end."""
        data = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run(
            self.command(*args), input=data, stdin=None if data is not None else subprocess.DEVNULL,
            capture_output=True, env=self.env, timeout=timeout, check=False,
        )  # fmt: skip
        return Result(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))

    def popen(self, *args: str, **kwargs: Any) -> subprocess.Popen[bytes]:
        """Start one bothy command; the caller ends it."""
        return subprocess.Popen(self.command(*args), env=self.env, **kwargs)

    def json(self, *args: str) -> Any:
        """The JSON that a command prints."""
        return json.loads(self(*args).ok().out)

    def inspect(self, ref: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = self.json("inspect", ref)
        return found[0]

    def processes(self) -> dict[int, str]:
        """The engine's processes by pid: those with its run folder in their environment (daemon, spawner, keepers), and those in
        its control groups (programs of containers, QEMU)."""
        mark = f"BOTHY_RUN={self.run_folder}".encode()
        scope = f"/{Paths(self.root, self.run_folder).scope}/"
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                environ = (entry / "environ").read_bytes().split(b"\0")
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                name = (entry / "comm").read_text().strip()
                ours = mark in environ or scope in (entry / "cgroup").read_text()
            except OSError:
                continue
            if ours and state != "Z":
                found[int(entry.name)] = name
        return found

    def pid_of(self, name: str) -> int:
        """The pid of the engine's process of that name (`bothyd`, `bothy-spawner`); fails if there is not exactly one.

        Children of it that have its name do not count: they have just been forked, or make a sandbox.
        """
        named = [pid for pid, comm in self.processes().items() if comm == name]
        pids = [pid for pid in named if parent_of(pid) not in (0, *named)]
        assert len(pids) == 1, f"{name}: {self.processes()}"
        return pids[0]

    def shutdown(self) -> None:
        """Remove every workload, end the daemon, and remove what the engine made on the host and on disk."""
        names = self("ps", "-aq").out.split()
        if names:
            self("rm", "-f", "-v", *names)
        self("system", "shutdown", "--teardown")
        await_(lambda: not self.processes(), "the engine's processes to end")
        for folder in (self.root, self.run_folder):
            shutil.rmtree(folder, ignore_errors=True)


def await_(condition: Callable[[], object], what: str, timeout: float = 20) -> None:
    """Wait for something outside of any process of ours that can tell us; fails the test, naming it, when it does not come."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"waited {timeout} s for {what}"
        time.sleep(0.01)


def parent_of(pid: int) -> int:
    """The pid of a process's parent; 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def kill9(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def parallel(processes: Sequence[subprocess.Popen[bytes]], timeout: float = 120) -> Iterator[Result]:
    """The results of commands that run at the same time, in order."""
    for process in processes:
        out, err = process.communicate(timeout=timeout)
        yield Result(process.returncode, (out or b"").decode(errors="replace"), (err or b"").decode(errors="replace"))
