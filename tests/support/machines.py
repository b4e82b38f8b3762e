"""Machines for tests: the keeper's wall on a loop of its own, with sessions that remember what they were told."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bothy.containers import defaults
from bothy.errors import StageError
from bothy.keeper import workload as wall
from bothy.keeper.loop import Loop
from bothy.keeper.machine import MachineWorkload
from bothy.keeper.model import ExecPlan
from bothy.linux import links
from bothy.linux.links import Interface, Route
from bothy.machines import rootdisk
from bothy.machines.model import Disk, MachinePlan
from bothy.oci.runtime import Process, Root, Spec

MIB = 1 << 20
INTERFACE = Interface("eth0", "02:42:ac:1f:00:02", ["172.31.99.2/24"], [Route("default", "172.31.99.1")])
APPLETS = ("sh", "cat", "true", "echo", "sleep", "ls", "mount", "hostname", "date", "ip", "ps", "stty", "tty", "head", "tr", "id", "pwd",
           "kill", "wc", "dd", "rm", "ping", "nc", "free", "seq", "grep", "mkdir", "touch", "sync", "fstrim", "printf", "od")  # fmt: skip


def make_disk(folder: Path) -> Path:
    """An EROFS image with busybox in it, and a user of its own."""
    staging = folder / "staging"
    staging.mkdir()
    root = Path(rootdisk.arrange(str(staging)))
    for name in ("bin", "etc", "tmp", "proc", "sys", "dev", "root"):
        (root / name).mkdir(parents=True)
    (root / "bin/busybox").write_bytes(Path("/bin/busybox").read_bytes())
    (root / "bin/busybox").chmod(0o755)
    for name in APPLETS:
        (root / "bin" / name).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nworker:x:1000:1000::/home/worker:/bin/sh\n")
    (root / "etc/hosts").symlink_to("/nowhere/hosts")
    (root / "tmp").chmod(0o1777)
    disk = folder / "image.erofs"
    os.utime(staging, (rootdisk.TIME, rootdisk.TIME))
    subprocess.run(["mkfs.erofs", "--quiet", disk, staging], check=True, capture_output=True)
    return disk


@dataclass
class Session:
    """What the core is to a program; `process` and `error` are set by `started`."""

    out: dict[int, bytes] = field(default_factory=lambda: {1: b"", 2: b""})
    ends: list[int] = field(default_factory=list)
    code: int | None = None
    process: wall.Process | None = None
    error: BaseException | None = None
    drains: int = 0

    def feed(self, which: int, data: bytes) -> None:
        self.out[which] += data

    def eof(self, which: int) -> None:
        self.ends.append(which)

    def drained(self) -> None:
        self.drains += 1

    def exited(self, code: int) -> None:
        assert self.code is None, "told twice"
        self.code = code

    def started(self, outcome: wall.Process | BaseException) -> None:
        if isinstance(outcome, BaseException):
            self.error = outcome
        else:
            self.process = outcome

    @property
    def text(self) -> str:
        return self.out[1].decode(errors="replace")

    @property
    def over(self) -> bool:
        return self.code is not None or self.error is not None


class Machine:
    """One machine on a loop of its own; `run` to its end, or `start` and `until`."""

    def __init__(self, plan: MachinePlan, folder: Path, *, stdin: bool = False) -> None:
        self.loop = Loop()
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.wall = MachineWorkload(self.loop, plan, str(folder), stdin=stdin)
        self.main = Session()
        self.closed = False

    def start(self) -> Session:
        try:
            self.wall.start(self.main, self.main.started)
        except StageError as exc:
            self.main.started(exc)
        self.until(lambda: self.main.process is not None or self.main.error is not None)
        return self.main

    def run(self) -> Session:
        self.start()
        self.until(lambda: self.main.over)
        self.close()
        return self.main

    def exec(self, *args: str, stdin: bool = False, **process: Any) -> Session:
        """Start a program in the machine; returns when it runs or could not."""
        session = Session()
        plan = ExecPlan("e", Process(list(args), env=["PATH=/bin"], **process), stdin=stdin)
        self.wall.exec(plan, session, session.started)
        self.until(lambda: session.process is not None or session.error is not None)
        return session

    def ask(self, request: Callable[[wall.Done], None]) -> Any:
        answers: list[Any] = []
        request(answers.append)
        self.until(lambda: bool(answers))
        return answers[0]

    def until(self, test: Callable[[], bool], limit: float = 60) -> None:
        """Turn the loop until it is so; looked at after every event, and at least some times a second."""
        deadline = time.monotonic() + limit
        while not test():
            assert time.monotonic() < deadline, f"it did not come to that: {self.main}, {self.wall.error}"
            timer = self.loop.later(0.2, lambda: None)
            self.loop.turn()
            timer.cancel()

    @property
    def qemu(self) -> int:
        assert self.wall._clone is not None
        return self.wall._clone.pid

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.wall.close()
            self.wall.release()
            self.loop.close()


@dataclass
class Machines:
    """Makes machines of one template and one image in one folder."""

    template: Path
    disk: Path
    folder: Path
    made: list[Machine] = field(default_factory=list)

    def plan(self, *args: str, name: str = "", process: dict[str, Any] | None = None, **changes: Any) -> MachinePlan:
        """A plan like the engine's, of a machine that nobody has used."""
        name = name or f"{len(self.made):012x}"
        sets, _ = defaults.capabilities()
        main = Process(list(args) or ["true"], env=["PATH=/bin"], **{"capabilities": sets, **(process or {})})
        plan = MachinePlan(
            id=name,
            spec=Spec(main, Root("/"), f"host-{name}", defaults.mounts()),
            template=str(self.template),
            vcpus=1,
            memory=128 * MIB,
            root=Disk(str(self.disk), readonly=True),
            scratch=Disk(str(self.folder / f"{name}.raw")),
            files={"/etc/hosts": "127.0.0.1 localhost\n", "/etc/hostname": f"host-{name}\n"},
        )
        return replace(plan, **changes)

    def machine(self, plan: MachinePlan, *, stdin: bool = False) -> Machine:
        made = Machine(plan, self.folder / f"keeper-{len(self.made)}", stdin=stdin)
        self.made.append(made)
        return made

    def run(self, *args: str, **changes: Any) -> Session:
        """A program in a machine of its own, to its end."""
        return self.machine(self.plan(*args, **changes)).run()

    def shell(self, script: str, **changes: Any) -> Session:
        return self.run("sh", "-c", script, **changes)

    def close(self) -> None:
        for machine in self.made:
            machine.close()


def qemus() -> list[int]:
    """QEMUs that are children of this process."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [pid for pid in map(int, children) if _name(pid).startswith("qemu")]


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except FileNotFoundError:
        return ""


def taps() -> list[str]:
    """Taps and bridges in this network namespace."""
    return [name for name in links.links() if name.startswith(("mt-", "bothy-"))]
