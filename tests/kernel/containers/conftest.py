"""Containers on the real kernel: a busybox layer, a keeper in a child process, and a check that nothing is left.

`rig.run([...])` starts a container, waits, and tells what came of it; `rig.keep(plan, body)` runs `body(container, started)` in the
keeper and returns what it returns. Both as the `rig` fixture says: with and without a user namespace, on either version of cgroups.
"""

from __future__ import annotations

import json
import os
import shutil
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bothy.containers import defaults, sandbox
from bothy.containers.cgroups.hierarchies import Hierarchies, of_this_host
from bothy.containers.model import ContainerPlan, Rootfs
from bothy.containers.start import Container, Started, Stdio
from bothy.errors import failure_of
from bothy.linux import links
from bothy.oci.runtime import Capabilities, Linux, Mount, Process, Resources, Rlimit, Root, Spec, User

SCOPE = f"/bothy-test-{os.getpid()}"
ID_BASE = 700_000_000
VETH = f"bt{os.getpid()}"
APPLETS = (
    "cat", "chmod", "chown", "dd", "df", "echo", "env", "false", "grep", "head", "hostname", "id", "ip", "kill", "ln", "ls", "mkdir", "mknod",
    "mount", "nc", "ps", "pwd", "readlink", "rm", "sh", "sleep", "stat", "stty", "sync", "tail", "test", "touch", "tr", "true", "tty",
    "umount", "wc", "timeout", "yes", "nproc", "usleep", "seq", "su", "sysctl",
)  # fmt: skip
PASSWD = "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n"
GROUP = "root:x:0:root\nann:x:1000:\nwheel:x:10:root,ann\nstaff:x:50:\ntty:x:5:\n"


@dataclass
class Result:
    """What came of a run: exit code (128 + signal), output, or a failure."""

    code: int = -1
    out: str = ""
    err: str = ""
    failure: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def make_layer(folder: Path) -> Path:
    """A root with busybox in it."""
    for name in ("bin", "etc", "tmp", "proc", "sys", "dev", "home/ann"):
        (folder / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", folder / "bin/busybox")
    for name in APPLETS:
        (folder / "bin" / name).symlink_to("busybox")
    (folder / "etc/passwd").write_text(PASSWD)
    (folder / "etc/group").write_text(GROUP)
    (folder / "tmp").chmod(0o1777)
    os.chown(folder / "home/ann", 1000, 1000)
    return folder


class Rig:
    """Makes plans, and keepers for them. One `Rig` a test; `userns` and `version` are what the test is run with."""

    def __init__(self, store: Path, *, userns: bool, version: int) -> None:
        self.store = store
        self.id_base = ID_BASE if userns else 0
        self.userns = userns
        self.hierarchies = of_this_host() if version == 1 else Hierarchies({}, "/sys/fs/cgroup/unified")
        self._count = 0

    def plan(
        self,
        args: list[str],
        *,
        mounts: list[Mount] | None = None,
        user: str = "",
        env: list[str] | None = None,
        cwd: str = "/",
        terminal: bool = False,
        readonly: bool = False,
        network: str = "private",
        resources: Resources | None = None,
        rlimits: list[Rlimit] | None = None,
        caps: Capabilities | None = None,
        lowers: list[Path] | None = None,
        devices: list[Any] | None = None,
        sysctl: dict[str, str] | None = None,
        no_new_privileges: bool = False,
        masked: tuple[str, ...] = defaults.MASKED_PATHS,
        shm_size: int = defaults.SHM_SIZE,
        private: tuple[str, ...] = defaults.NAMESPACES,
        oom_score_adj: int | None = None,
        volatile: bool = False,
        **more: Any,
    ) -> ContainerPlan:
        """The plan of a container of its own folder; the defaults of `bothy.containers.defaults` where nothing else is said."""
        self._count += 1
        name = more.pop("name", f"c{self._count}")
        folder = self.store / "containers" / name
        for part in ("upper", "work"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        process = Process(
            args=args,
            cwd=cwd,
            env=["PATH=/bin", *(env or [])],
            terminal=terminal,
            user=User(username=user),
            capabilities=caps or defaults.capabilities()[0],
            rlimits=rlimits or [],
            no_new_privileges=no_new_privileges,
            oom_score_adj=oom_score_adj,
        )
        limits = resources or Resources()
        linux = Linux(
            namespaces=defaults.namespaces(network=network, private=private),
            devices=defaults.devices() + (devices or []),
            resources=Resources([*defaults.device_rules(), *limits.devices], limits.memory, limits.cpu, limits.pids),
            masked_paths=list(masked),
            readonly_paths=list(defaults.READONLY_PATHS),
            sysctl=sysctl or {},
        )
        spec = Spec(
            process,
            Root("/", readonly),
            more.pop("hostname", "box"),
            [*defaults.mounts(shm_size=shm_size), *(mounts or [])],
            linux,
        )
        layers = [str(path) for path in (lowers or [self.store / "layers/busybox"])]
        rootfs = Rootfs(str(self.store), layers, str(folder / "upper"), str(folder / "work"), volatile)
        return ContainerPlan(name, spec, rootfs, self.id_base, cgroup=f"{SCOPE}/{name}", **more)

    def run(self, args: list[str], *, stdin: bytes = b"", **options: Any) -> Result:
        """Start, feed, wait, clean up."""
        return self.run_plan(self.plan(args, **options), stdin=stdin, network=options.get("network", "private"))

    def run_plan(self, plan: ContainerPlan, *, stdin: bytes = b"", network: str = "private") -> Result:
        """`run` of a plan."""

        def body(container: Container, started: Started) -> dict[str, Any]:
            code = os.waitstatus_to_exitcode(os.waitpid(started.pid, 0)[1])
            return {"code": code if code >= 0 else 128 - code, "warnings": list(started.warnings)}

        return self._keep(plan, body, stdin, network)[1]

    def keep(self, plan: ContainerPlan, body: Callable[[Container, Started], Any], network: str = "private") -> Any:
        """What `body` returns (JSON), run in the keeper of the container. It may leave the program running."""
        value, result = self._keep(plan, body, b"", network)
        assert not result.failure, result.failure
        return value

    def _keep(
        self, plan: ContainerPlan, body: Callable[[Container, Started], Any], stdin: bytes, network: str
    ) -> tuple[Any, Result]:
        ends = [os.pipe2(os.O_CLOEXEC) for _ in range(4)]  # stdin, stdout, stderr, what the keeper has to say
        keeper = os.fork()
        if keeper == 0:
            said: dict[str, Any] = {}
            try:
                os.close(ends[0][1])
                said = _keeper(plan, body, (ends[0][0], ends[1][1], ends[2][1]), self.hierarchies, network)
            except BaseException as exc:
                said = {"failure": failure_of(exc, "test"), "trace": traceback.format_exc()}
            finally:
                os.write(ends[3][1], json.dumps(said).encode())
                os._exit(0)
        for near in (ends[0][0], ends[1][1], ends[2][1], ends[3][1]):
            os.close(near)
        with open(ends[0][1], "wb") as feed:
            feed.write(stdin)
        texts = [_read(ends[number][0]) for number in (1, 2, 3)]
        _, status = os.waitpid(keeper, 0)
        assert status == 0
        said = json.loads(texts[2] or "{}")
        if "trace" in said and said["failure"]["stage"] == "test":
            raise AssertionError(said["trace"])
        value = said.get("value")
        told = value if isinstance(value, dict) else {}
        result = Result(told.get("code", -1), texts[0], texts[1], said.get("failure", {}), told.get("warnings", []))
        return value, result


def _keeper(
    plan: ContainerPlan,
    body: Callable[[Container, Started], Any],
    stdio: tuple[int, int, int],
    hierarchies: Hierarchies,
    network: str,
) -> dict[str, Any]:
    container = Container(plan, sandbox.make(plan.id_base, network), hierarchies)
    started = container.start(Stdio(*stdio))
    for fd in stdio:
        os.close(fd)
    try:
        return {"value": body(container, started)}
    finally:
        container.kill()
        _reap_all()
        container.cleanup()


def _reap_all() -> None:
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _read(fd: int) -> str:
    with open(fd, encoding="utf-8", errors="replace") as file:
        return file.read()


@pytest.fixture(scope="session")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    folder.chmod(0o711)
    make_layer(folder / "layers/busybox")
    return folder


@pytest.fixture(params=["userns", "host-ids"])
def userns(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "userns")


@pytest.fixture(params=[1, 2], ids=["v1", "v2"])
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def rig(layer: Path, userns: bool) -> Iterator[Rig]:
    """On this host's own control groups."""
    yield Rig(layer, userns=userns, version=of_this_host().version)
    shutil.rmtree(layer / "containers", ignore_errors=True)


@pytest.fixture
def rig_of_each_version(layer: Path, userns: bool, version: int) -> Iterator[Rig]:
    """On both versions (of v2 without controllers, where the host is hybrid)."""
    yield Rig(layer, userns=userns, version=version)
    shutil.rmtree(layer / "containers", ignore_errors=True)


@pytest.fixture
def veth() -> str:
    """The beginning of the names of the links that this run may make."""
    return VETH


@pytest.fixture(autouse=True)
def settled(layer: Path) -> Iterator[None]:
    """Nothing is left by a test: mounts, groups, links, children, descriptors."""
    before = _traces(layer)
    yield
    assert _traces(layer) == before
    for root in {*of_this_host().v1.values(), of_this_host().v2}:
        if root and os.path.isdir(root + SCOPE):
            assert [entry.name for entry in os.scandir(root + SCOPE) if entry.is_dir()] == []
            os.rmdir(root + SCOPE)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def _traces(store: Path) -> tuple[list[str], list[str], list[str]]:
    """What a container could leave, of those that these tests make: others may be at work on this host."""
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(store) in line]
    return mounts, sorted(name for name in links.links() if name.startswith(VETH)), sorted(os.listdir("/proc/self/fd"))
