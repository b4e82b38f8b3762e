"""What the use cases share: the rooms, the records, the processes. Made by `bothy.engine.core`, passed to every verb."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bothy.engine.events import Events
from bothy.engine.execs import Execs
from bothy.engine.health import Healths
from bothy.engine.inotify import Inotify
from bothy.engine.limits import Host
from bothy.engine.model import Workload
from bothy.engine.ranges import Ranges
from bothy.engine.records import Records
from bothy.engine.settings import Settings
from bothy.engine.spawner import Spawner
from bothy.engine.workloads import Live, Workloads
from bothy.images.store import ImageStore
from bothy.log import logger
from bothy.machines.templates import Templates
from bothy.networks.service import Networks
from bothy.paths import Paths
from bothy.volumes.mounted import Hold
from bothy.volumes.snapshots import Snapshots
from bothy.volumes.store import Volumes

if TYPE_CHECKING:
    from bothy.engine.spares import Spares

_log = logger("engine")


Verb = Callable[["Hall", Live], Coroutine[Any, Any, None]]


@dataclass
class Hall:
    """`auto_remove` and `start_again` are the verbs that the end of a run may lead to. `recovered`: the records are true."""

    paths: Paths
    settings: Settings
    records: Records
    workloads: Workloads
    events: Events
    images: ImageStore
    networks: Networks
    volumes: Volumes
    templates: Templates
    ranges: Ranges
    spawner: Spawner
    auto_remove: Verb
    start_again: Verb
    snapshots: Snapshots = field(init=False)
    execs: Execs = field(init=False)
    healths: Healths = field(init=False)
    spares: Spares = field(init=False)
    inotify: Inotify = field(default_factory=Inotify)
    host: Host = field(default_factory=Host.here)
    seccomp: dict[tuple[str, tuple[str, ...]], str] = field(default_factory=dict)
    recovered: asyncio.Event = field(default_factory=asyncio.Event)
    holds: dict[str, list[Hold]] = field(default_factory=dict)
    closing: bool = False
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.snapshots = Snapshots(self.volumes)
        self.execs = Execs(self)

    def background(self, work: Coroutine[Any, Any, object], what: str) -> None:
        """Run something that nobody waits for; its failure is logged."""
        task = asyncio.get_running_loop().create_task(work, name=what)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    async def drain(self) -> None:
        """Wait for what runs in the background."""
        while self._tasks:
            await asyncio.wait(list(self._tasks))

    def tell(self, record: Workload, action: str, **attributes: str) -> None:
        """Publish an event about a workload, with the attributes that Docker's have."""
        common = {**record.config.labels, "image": record.image_name, "name": record.name}
        self.events.publish("container", action, record.id, {**common, **attributes})

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()) is not None:
            _log.error("%s failed: %s", task.get_name(), exc, exc_info=exc)
