"""A real engine in the test's own process: real spawner, real keepers, real kernel; a state root of its own with busybox in it."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bothy.containers.cgroups import hierarchies
from bothy.engine.core import Engine
from bothy.engine.model import Config, HostConfig, NetworkingConfig, Status, Workload
from bothy.engine.settings import Settings
from bothy.paths import Paths

Scenario = Callable[["Driver"], Awaitable[None]]


class Driver:
    """An engine and the few words that most scenarios need."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    async def create(self, *cmd: str, name: str = "", config: Config | None = None, host: HostConfig | None = None) -> Workload:
        asked = config or Config(image="busybox", cmd=list(cmd))
        wanted = host or HostConfig(network_mode="none")
        workload, _ = await self.engine.containers.create(name, asked, wanted, NetworkingConfig())
        return workload

    async def run(self, *cmd: str, name: str = "", host: HostConfig | None = None) -> Workload:
        """Create and start."""
        workload = await self.create(*cmd, name=name, host=host)
        await self.engine.containers.start(workload.id)
        return self.engine.containers.get(workload.id)

    async def wait(self, ref: str, condition: str = "not-running") -> int:
        return (await asyncio.wait_for(self.engine.containers.watch(ref, condition), 20)).code

    async def log(self, ref: str, **options: object) -> bytes:
        wanted = {"stdout": True, "stderr": True, "since": "", "until": "", "tail": -1, "follow": False, **options}
        entries = self.engine.containers.logs(ref, **wanted)  # type: ignore[arg-type]
        return b"".join([entry.data async for entry in entries])

    async def clear(self) -> None:
        """Remove every workload."""
        for workload in self.engine.containers.list(all_=True, limit=0, filters={}):
            await self.engine.containers.remove(workload.id, force=True, volumes=True)


def left(paths: Paths) -> dict[str, list[str]]:
    """What workloads may have left: folders and cgroups."""
    found: dict[str, list[str]] = {}
    for folder in (paths.root / "containers", paths.run / "keepers", paths.volumes):
        if folder.is_dir() and (names := sorted(os.listdir(folder))):
            found[str(folder)] = names
    roots = hierarchies.of_this_host()
    for root in {*roots.v1.values(), *([roots.v2] if roots.v2 else [])}:
        parent = Path(root, paths.scope)
        if parent.is_dir() and (names := [e.name for e in parent.iterdir() if e.is_dir()]):
            found[str(parent)] = names
    return found


@pytest.fixture(scope="session")
def stocked() -> Iterator[Path]:
    """A state root with the busybox image."""
    root = Path(tempfile.mkdtemp(prefix="bothy-engine-", dir="/var/tmp"))
    run = Path(tempfile.mkdtemp(prefix="bothy-engine-", dir="/run"))

    async def stock() -> None:
        async with opened(Paths(root, run)) as driver:
            await driver.engine.images.bootstrap("busybox", "", [], lambda _: None)

    asyncio.run(stock())
    yield root
    shutil.rmtree(root)
    shutil.rmtree(run, ignore_errors=True)


@pytest.fixture
def paths(stocked: Path) -> Iterator[Paths]:
    """The stocked root with a run folder of its own; afterwards nothing of any workload may be left."""
    run = Path(tempfile.mkdtemp(prefix="bothy-engine-", dir="/run"))
    found = Paths(stocked, run)
    yield found

    async def end() -> None:
        async with opened(found, teardown=True) as driver:
            await driver.clear()

    asyncio.run(end())
    shutil.rmtree(run)
    assert not left(found)


@asynccontextmanager
async def opened(paths: Paths, *, teardown: bool = False, settings: Settings | None = None) -> AsyncIterator[Driver]:
    """A started engine, closed in the end."""
    engine = Engine(paths, settings or Settings())
    await engine.start()
    try:
        yield Driver(engine)
    finally:
        await engine.close(teardown=teardown)


@pytest.fixture
def play(paths: Paths) -> Callable[[Scenario], None]:
    """Run a scenario with an engine; then remove its workloads and see that nothing is left."""

    def run(scenario: Scenario) -> None:
        async def whole() -> None:
            async with opened(paths) as driver:
                try:
                    await scenario(driver)
                finally:
                    await driver.clear()
            assert not left(paths)

        asyncio.run(whole())

    return run


def is_up(workload: Workload) -> bool:
    return workload.status is Status.RUNNING
