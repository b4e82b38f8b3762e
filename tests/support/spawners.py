"""A real spawner and real containers from a busybox root, without an engine: the plans are made here."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bothy.containers import defaults
from bothy.containers.model import ContainerPlan, Rootfs
from bothy.jsonable import PLAIN
from bothy.keeper.model import Client, ExecPlan, KeeperPlan, LogPlan
from bothy.linux import channel
from bothy.oci.runtime import IdMapping, Linux, Mount, Process, Resources, Root, Spec
from bothy.spawner import command
from tests.support.keepers import Daemon, Peer, children, connection

ID_BASE = 1_900_000_000
ENV = ["PATH=/bin"]


def busybox_root(folder: Path) -> Path:
    """A layer with busybox and its links."""
    root = folder / "layer"
    for name in ("bin", "dev", "proc", "sys", "tmp", "etc"):
        (root / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "/bin/busybox", root / "bin/busybox")
    names = subprocess.run([root / "bin/busybox", "--list"], capture_output=True, text=True, check=True).stdout.split()
    for name in names:
        if name != "busybox":
            (root / "bin" / name).symlink_to("busybox")
    return root


class SpawnerHarness:
    """A spawner and its keepers, in a folder; `close` checks that all of it has ended."""

    def __init__(self, folder: Path, *, environ: dict[str, str] | None = None, hello: list[str] | None = None) -> None:
        self.folder = folder
        self.layer = busybox_root(folder)
        self._count = 0
        self._open: list[Any] = []
        self.pids: dict[str, int] = {}
        ours, theirs = channel.pair()
        self.process = subprocess.Popen(
            command.argv(theirs.fileno()), pass_fds=[theirs.fileno()], env=dict(os.environ) | (environ or {})
        )
        theirs.close()
        self.spawner = Daemon(ours)

    @property
    def zygote(self) -> int:
        """The pid of the spawner's zygote, once it answers."""
        self.spawner.request("nothing")
        return children(self.process.pid)[0]

    def plan(self, name: str, *args: str, id_base: int = ID_BASE, memory: Resources | None = None, **options: Any) -> KeeperPlan:
        """A container on the busybox layer with Docker's defaults and no network."""
        tty = bool(options.pop("tty", False))
        process = Process(list(args), env=ENV, terminal=tty, capabilities=defaults.capabilities()[0])
        place = self.folder / "containers" / name
        for part in ("upper", "work"):
            (place / part).mkdir(parents=True, exist_ok=True)
        mappings = [IdMapping(0, id_base)] if id_base else []
        resources = memory or Resources(devices=defaults.device_rules())
        linux = Linux(
            namespaces=defaults.namespaces(),
            uid_mappings=mappings,
            gid_mappings=mappings,
            devices=defaults.devices(),
            resources=resources,
            masked_paths=list(defaults.MASKED_PATHS),
            readonly_paths=list(defaults.READONLY_PATHS),
        )
        mounts: list[Mount] = defaults.mounts()
        spec = Spec(process, Root("/"), name, mounts, linux)
        rootfs = Rootfs(str(self.folder), [str(self.layer)], str(place / "upper"), str(place / "work"))
        container = ContainerPlan(name, spec, rootfs, id_base=id_base, cgroup=f"/bothy-test-{os.getpid()}/{name}")
        return KeeperPlan(name, LogPlan(str(place / "log")), container, tty=tty, **options)

    def keeper(self, *args: str, network: str = "private", **options: Any) -> Daemon:
        """A keeper of a container, born and not started."""
        self._count += 1
        name = f"c{self._count}"
        options.setdefault("id_base", ID_BASE + 65536 * self._count)
        plan = self.plan(name, *args, **options)
        folder = self.run_folder(name)
        folder.mkdir(parents=True)
        (folder / "spec.json").write_text(PLAIN.dumps(plan))
        ours, theirs = channel.pair()
        self.spawner.tell("keeper", (theirs.fileno(),), id=name, folder=str(folder), id_base=options["id_base"], network=network)
        theirs.close()
        daemon = Daemon(ours)
        self._open.append(daemon)
        daemon.name = name  # type: ignore[attr-defined]
        return daemon

    def run_folder(self, name: str) -> Path:
        return self.folder / "run" / name

    def log(self, name: str) -> Path:
        return self.folder / "containers" / name / "log"

    def start(self, daemon: Daemon, **fields: Any) -> Peer:
        return self._with_client(daemon, "start", lambda data: {"clients": [data]}, **fields)

    def attach(self, daemon: Daemon, **fields: Any) -> Peer:
        return self._with_client(daemon, "attach", lambda data: {"client": data}, **fields)

    def exec(self, daemon: Daemon, name: str, *args: str, tty: bool = False, stdin: bool = False, **fields: Any) -> Peer:
        plan = PLAIN.to_data(ExecPlan(name, Process(list(args), env=ENV, terminal=tty), stdin=stdin))
        return self._with_client(daemon, "exec", lambda data: {"plan": plan, "client": data}, stdin=stdin, **fields)

    def _with_client(self, daemon: Daemon, op: str, make: Callable[[Any], dict[str, Any]], **fields: Any) -> Peer:
        peer, fd = connection()
        self._open.append(peer)
        answer = daemon.request(op, (fd,), **make(PLAIN.to_data(Client(**fields))))
        os.close(fd)
        assert "error" not in answer, answer
        return peer

    def close(self) -> None:
        for thing in self._open:
            if isinstance(thing, Daemon):
                end_keeper(thing)
            thing.close()
        try:
            self.spawner.tell("bye")
        except OSError:
            pass
        self.process.wait(10)
        self.spawner.close()
        for folder in Path("/sys/fs/cgroup").glob(f"**/bothy-test-{os.getpid()}"):
            folder.rmdir()  # all of the containers' must have gone


def end_keeper(daemon: Daemon) -> None:
    """Kill what a keeper runs, and wait until it has left."""
    try:
        if "error" in daemon.request("kill"):
            return
        while daemon.read() is not None:
            pass
    except (OSError, AssertionError):
        pass


def wait_gone(pid: int, timeout: float = 10) -> None:
    """Wait until a process has ended (its parent may not have reaped it yet)."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([fd], [], [], timeout)[0], f"process {pid} does not end"
    finally:
        os.close(fd)


def remove_cgroups() -> None:
    """Remove the control groups that a killed keeper has left, as a daemon does."""
    for folder in Path("/sys/fs/cgroup").glob(f"**/bothy-test-{os.getpid()}/*"):
        if folder.is_dir():
            folder.rmdir()


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    wait_gone(pid)
