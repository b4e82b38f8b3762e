"""An engine that has nothing behind it, for the HTTP shapes alone: records in a dict, attached connections echoed by this process."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from bothy.engine.model import (
    Config,
    Connection,
    EndpointConfig,
    Event,
    ExecRequest,
    ExecSession,
    HostConfig,
    LogEntry,
    NetworkingConfig,
    Status,
    Wall,
    Workload,
)
from bothy.errors import Conflict, Forbidden, Invalid, NotFound, Unchanged
from bothy.images.model import Image
from bothy.keeper.model import Client, Exit
from bothy.networks.model import Network, NetworkRequest
from bothy.oci.image import ImageConfig
from bothy.paths import Paths

ID = "ab" * 32


def workload(**changes: Any) -> Workload:
    """A record to start from."""
    base = Workload(
        id=ID,
        name="web",
        wall=Wall.CONTAINER,
        image="sha256:" + "1" * 64,
        image_name="busybox:latest",
        config=Config(image="busybox", cmd=["sleep", "1"]),
        host_config=HostConfig(),
        networking=NetworkingConfig(),
        created="2026-01-02T03:04:05.000000006Z",
        path="sleep",
        args=["1"],
    )
    return replace(base, **changes)


def image(**changes: Any) -> Image:
    """An image to start from."""
    base = Image(
        id="sha256:" + "1" * 64,
        created="2026-01-02T03:04:05Z",
        architecture="amd64",
        os="linux",
        size=1000,
        config=ImageConfig(env=["PATH=/bin"], cmd=["sh"], labels={"a": "b"}),
        layers=["sha256:" + "2" * 64],
        repo_tags=["busybox:latest"],
    )
    return replace(base, **changes)


class Containers:
    def __init__(self) -> None:
        self.records: dict[str, Workload] = {}
        self.created: list[tuple[str, Config, HostConfig, NetworkingConfig]] = []
        self.asked: list[tuple[Any, ...]] = []
        self.attached: list[tuple[Connection, Client]] = []
        self.watchers: list[asyncio.Future[Exit]] = []
        self.entries: list[LogEntry] = []
        self.more = asyncio.Event()
        self.logs_ended = asyncio.Event()
        self.attach_failure: Exception | None = None

    def get(self, ref: str) -> Workload:
        for record in self.records.values():
            if ref in (record.id, record.name):
                return record
        raise NotFound(f"No such container: {ref}", hint="bothy ps -a lists them")

    def list(self, *, all_: bool, limit: int, filters: dict[str, Any]) -> Any:
        self.asked.append(("list", all_, limit, filters))
        return list(self.records.values())

    async def create(
        self, name: str, config: Config, host_config: HostConfig, networking: NetworkingConfig, platform: str = ""
    ) -> Any:
        self.asked.append(("create", platform))
        self.created.append((name, config, host_config, networking))
        made = workload(name=name or "web", config=config, host_config=host_config, networking=networking)
        self.records[made.id] = made
        return made, ["a warning"]

    async def start(self, ref: str) -> None:
        if self.get(ref).status is Status.RUNNING:
            raise Unchanged("it runs already")
        self.records[ref] = replace(self.get(ref), status=Status.RUNNING)

    async def stop(self, ref: str, timeout: int | None, signal: str) -> None:
        self.asked.append(("stop", ref, timeout, signal))

    restart = stop

    async def kill(self, ref: str, signal: str) -> None:
        self.asked.append(("kill", ref, signal))
        raise Conflict(f"{ref} is not running")

    async def pause(self, ref: str) -> None:
        self.asked.append(("pause", ref))

    unpause = pause

    async def rename(self, ref: str, name: str) -> None:
        self.asked.append(("rename", ref, name))

    async def remove(self, ref: str, *, force: bool, volumes: bool) -> None:
        self.asked.append(("remove", ref, force, volumes))

    async def prepare(self, ref: str, progress: Any) -> None:
        progress("making a template")
        await asyncio.to_thread(progress, "still at it")

    def watch(self, ref: str, condition: str) -> asyncio.Future[Exit]:
        self.get(ref)
        future: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self.watchers.append(future)
        return future

    async def attach(self, ref: str, connection: Connection, client: Client, *, logs: bool, stream: bool) -> None:
        if self.attach_failure is not None:
            os.close(connection.fd)
            raise self.attach_failure
        self.attached.append((connection, client))

    async def resize(self, ref: str, height: int, width: int) -> None:
        self.asked.append(("resize", ref, height, width))

    async def top(self, ref: str, ps_args: str) -> Any:
        return ["PID"], [[ps_args]]

    async def stats(self, ref: str) -> dict[str, Any]:
        return {"cpu_stats": {"cpu_usage": {"total_usage": 7}}, "memory_stats": {"usage": 1}, "pids_stats": {"current": 1}}

    async def logs(self, ref: str, **wanted: Any) -> AsyncIterator[LogEntry]:
        self.asked.append(("logs", wanted))
        if wanted["since"] == "never":
            raise Invalid("'never' is not a time")
        try:
            for entry in self.entries:
                yield entry
            while wanted["follow"]:
                await self.more.wait()
                self.more.clear()
                yield self.entries[-1]
        finally:
            self.logs_ended.set()

    async def prune(self, filters: dict[str, Any]) -> Any:
        return ([ID], 5)

    async def sizes(self) -> dict[str, Any]:
        return {ID: (3, 9)}


class Execs:
    def __init__(self) -> None:
        self.sessions: dict[str, ExecSession] = {}
        self.started: list[tuple[Connection | None, Client | None, bool, Any]] = []
        self.failure: Exception | None = None

    async def create(self, ref: str, request: ExecRequest) -> ExecSession:
        session = ExecSession(id="e" * 64, workload=ID, request=request)
        self.sessions[session.id] = session
        return session

    async def start(self, exec_id: str, connection: Any, client: Any, *, tty: bool, console_size: Any) -> None:
        if self.failure is not None:
            os.close(connection.fd)
            raise self.failure
        self.started.append((connection, client, tty, console_size))

    def get(self, exec_id: str) -> ExecSession:
        if exec_id not in self.sessions:
            raise NotFound(f"No such exec instance: {exec_id}")
        return self.sessions[exec_id]

    def running(self, ref: str) -> list[str]:
        return []

    async def resize(self, exec_id: str, height: int, width: int) -> None:
        self.get(exec_id)


class Images:
    def __init__(self) -> None:
        self.loaded: list[bytes] = []
        self.asked: list[tuple[Any, ...]] = []

    async def list(self, filters: dict[str, Any]) -> Any:
        return [image()]

    async def get(self, ref: str) -> Image:
        if ref != "busybox" and "/" not in ref:
            raise NotFound(f"No such image: {ref}")
        return image(repo_tags=[ref])

    async def history(self, ref: str) -> Any:
        return []

    async def tag(self, ref: str, repo: str, tag: str) -> None:
        self.asked.append(("tag", ref, repo, tag))

    async def remove(self, ref: str, *, force: bool, noprune: bool) -> Any:
        return [{"Untagged": ref}]

    async def load(self, path: Path, progress: Any) -> Any:
        data = path.read_bytes()
        if data.startswith(b"bad"):
            raise Invalid("not an image archive")
        self.loaded.append(data)
        progress("unpacking")
        if data.startswith(b"half"):
            await asyncio.sleep(0.01)
            raise Invalid("a layer is broken")
        return ["busybox:latest"]

    async def save(self, refs: Any, out: Path) -> None:
        for ref in refs:
            await self.get(ref)
        out.write_bytes(b"archive of " + ",".join(refs).encode())

    async def import_(self, path: Path, repo: str, tag: str, message: str, changes: Any) -> Image:
        self.asked.append(("import", path.read_bytes(), repo, tag, message, changes))
        return image()

    async def bootstrap(self, source: str, name: str, include: Any, progress: Any) -> Image:
        progress(f"making {source} with {','.join(include)}")
        return image()

    async def prune(self, filters: dict[str, Any]) -> Any:
        return ([], 0)


class Networks:
    found = Network(id="9" * 64, name="bridge", driver="bridge", created="2026-01-02T03:04:05Z", subnet="172.30.0.0/16")

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def list(self, filters: dict[str, Any]) -> Any:
        return [self.found]

    async def get(self, ref: str) -> Network:
        return self.found

    def members(self, found: Network) -> list[Workload]:
        return []

    async def create(self, request: NetworkRequest) -> tuple[Network, list[str]]:
        self.asked.append(request)
        return self.found, ["mind", "the gap"]

    async def remove(self, ref: str) -> None:
        raise Forbidden(f"{ref} is a pre-defined network and cannot be removed")

    async def prune(self, filters: dict[str, Any]) -> list[str]:
        return ["old"]

    async def connect(self, ref: str, name: str, wanted: EndpointConfig) -> None:
        self.asked.append((ref, name, wanted))

    async def disconnect(self, ref: str, name: str, *, force: bool) -> None:
        self.asked.append((ref, name, force))

    async def examine(self) -> dict[str, Any]:
        return {"Ports": [], "Networks": [], "Problems": []}


class Events:
    def __init__(self) -> None:
        self.queue: asyncio.Queue[Event | None] = asyncio.Queue()
        self.listening = 0

    async def subscribe(self, since: int, until: int, filters: dict[str, Any]) -> AsyncIterator[Event]:
        if "nonsense" in filters:
            raise Invalid("invalid filter 'nonsense'")
        self.listening += 1
        try:
            while (event := await self.queue.get()) is not None:
                yield event
        finally:
            self.listening -= 1


class System:
    async def info(self) -> dict[str, Any]:
        return {"OSType": "linux"}

    async def version(self) -> dict[str, Any]:
        raise RuntimeError("a bug")

    async def df(self) -> dict[str, Any]:
        return {}


class Double:
    def __init__(self, root: Path) -> None:
        self.paths = Paths(root, root)
        self.teardown_asked = False
        self.containers = Containers()
        self.execs = Execs()
        self.images = Images()
        self.networks = Networks()
        self.events = Events()
        self.system = System()
        self.volumes: Any = None
        self.templates: Any = None


def recv_all(fd: int, seconds: float = 2.0) -> bytes:
    """Everything up to the end of the stream of a taken connection."""
    with socket.socket(fileno=os.dup(fd)) as sock:
        sock.settimeout(seconds)
        data = b""
        while part := sock.recv(65536):
            data += part
        return data
