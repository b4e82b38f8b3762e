"""The engine's `containers`: one method a verb, each in its own module. References are ids, beginnings of ids, or names."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from bothy.engine import filters as matching
from bothy.engine import names
from bothy.engine.containers import create, listing, network, plans, publishing, remove, start, stop, streams, update
from bothy.engine.hall import Hall
from bothy.engine.model import Config, Connection, HostConfig, LogEntry, NetworkingConfig, PublishedPort, Status, Workload
from bothy.errors import Invalid
from bothy.keeper.model import Client, Exit

_Workloads = list[Workload]
_Words = list[str]
_Table = list[list[str]]
_Published = list[PublishedPort]


class Containers:
    def __init__(self, hall: Hall) -> None:
        self._hall = hall

    async def create(
        self, name: str, config: Config, host_config: HostConfig, networking: NetworkingConfig, platform: str = ""
    ) -> tuple[Workload, _Words]:
        return await create.create(self._hall, name, config, host_config, networking, platform)

    def get(self, ref: str) -> Workload:
        """The record. Raises NotFound, Conflict (ambiguous)."""
        return self._hall.workloads.find(ref).record

    def list(self, *, all_: bool, limit: int, filters: matching.Filters) -> _Workloads:
        return listing.listed(self._hall, everything=all_, limit=limit, filters=filters)

    async def sizes(self) -> dict[str, tuple[int, int]]:
        return await listing.sizes(self._hall)

    async def prepare(self, ref: str, progress: Callable[[str], None]) -> None:
        await plans.prepare(self._hall, self._hall.workloads.find(ref), progress)

    async def start(self, ref: str) -> None:
        await start.start(self._hall, self._hall.workloads.find(ref))

    async def stop(self, ref: str, timeout: int | None, signal: str) -> None:
        await stop.stop(self._hall, self._hall.workloads.find(ref), timeout, signal)

    async def restart(self, ref: str, timeout: int | None, signal: str) -> None:
        await stop.restart(self._hall, self._hall.workloads.find(ref), timeout, signal)

    async def kill(self, ref: str, signal: str) -> None:
        await stop.kill(self._hall, self._hall.workloads.find(ref), signal)

    async def pause(self, ref: str) -> None:
        await stop.pause(self._hall, self._hall.workloads.find(ref))

    async def unpause(self, ref: str) -> None:
        await stop.unpause(self._hall, self._hall.workloads.find(ref))

    async def update(self, ref: str, asked: HostConfig) -> _Words:
        return await update.update(self._hall, self._hall.workloads.find(ref), asked)

    async def rename(self, ref: str, name: str) -> None:
        """Give it another name. Raises Conflict for one in use (or its own), Invalid for one that is not allowed."""
        live = self._hall.workloads.find(ref)
        async with live.lock:
            new, old = names.checked(name), live.record.name
            if new == old:
                raise Invalid("renaming a container with the same name as its current name")
            self._hall.workloads.check_name(new)
            self._hall.workloads.change(live, name=new)
            if live.keeper is not None:
                network.tell_names(self._hall, live.record)
            self._hall.tell(live.record, "rename", oldName=f"/{old}")

    async def add_ports(self, ref: str, bindings: publishing.Bindings) -> _Published:
        return await publishing.add(self._hall, self._hall.workloads.find(ref), bindings)

    async def remove_ports(self, ref: str, choice: publishing.PortChoice) -> _Published:
        return await publishing.remove(self._hall, self._hall.workloads.find(ref), choice)

    async def remove(self, ref: str, *, force: bool, volumes: bool) -> None:
        await remove.remove(self._hall, self._hall.workloads.find(ref), force=force, volumes=volumes)

    async def prune(self, filters: matching.Filters) -> tuple[_Words, int]:
        return await remove.prune(self._hall, filters)

    def watch(self, ref: str, condition: str) -> asyncio.Future[Exit]:
        """A future of its exit, registered on return: `not-running` (done at once if so), `next-exit`, `removed`."""
        return self._hall.workloads.find(ref).watch(condition)

    async def attach(self, ref: str, connection: Connection, client: Client, *, logs: bool, stream: bool) -> None:
        await streams.attach(self._hall, self._hall.workloads.find(ref), connection, client, with_logs=logs, stream=stream)

    def logs(
        self, ref: str, *, stdout: bool, stderr: bool, since: str, until: str, tail: int, follow: bool
    ) -> AsyncIterator[LogEntry]:
        live = self._hall.workloads.find(ref)
        return streams.read_logs(self._hall, live, stdout=stdout, stderr=stderr, since=since, until=until, tail=tail, follow=follow)

    async def resize(self, ref: str, height: int, width: int) -> None:
        await streams.resize(self._hall, self._hall.workloads.find(ref), height, width)

    async def top(self, ref: str, ps_args: str) -> tuple[_Words, _Table]:
        return await streams.top(self._hall.workloads.find(ref), ps_args)

    async def stats(self, ref: str) -> dict[str, Any]:
        return await streams.stats(self._hall.workloads.find(ref))

    def count(self, *states: Status) -> int:
        """How many workloads are in one of the states."""
        return self._hall.workloads.with_status(*states)
