"""The workloads that are known, by id, by name, by the beginning of an id; each with its lock and what is going on around it."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Iterator
from typing import Any, Literal

from bothy.engine.keepers import Keeper
from bothy.engine.model import Connection, Status, Workload
from bothy.engine.records import Records
from bothy.engine.visits import Visit
from bothy.errors import BothyError, Conflict, NotFound
from bothy.keeper.model import Client, Exit
from bothy.log import logger

_log = logger("engine")
_LOOK = 1.0


class Lock(asyncio.Lock):
    """A lock that a visit of what does not run may hold (`visit`). Who wants it waits for as long as the visit gets on; one whose
    client does not is broken off."""

    def __init__(self) -> None:
        super().__init__()
        self.visit: Visit | None = None

    async def acquire(self) -> Literal[True]:
        if self.visit is None:
            return await super().acquire()
        waiting = asyncio.ensure_future(super().acquire())
        try:
            while not (await asyncio.wait([waiting], timeout=_LOOK))[0]:
                if self.visit is not None and self.visit.stalled:
                    await self.visit.abandon()
        except BaseException:
            if not waiting.cancel() and not waiting.cancelled():
                self.release()
            raise
        return waiting.result()


class Live:
    """A record and what belongs to it in this process. `lock` is held by every verb that changes the workload's state."""

    def __init__(self, record: Workload) -> None:
        self.record = record
        self.lock = Lock()
        self.keeper: Keeper | None = None
        self.held: list[tuple[Connection, Client]] = []
        self.ended: asyncio.Future[Exit] | None = None
        self.restart_timer: asyncio.TimerHandle | None = None
        self.restart_delay = 0.0
        self.cleaning: asyncio.Future[None] | None = None
        self.stopping = False
        self.oom = False
        self.removed = False
        self.visits: set[Visit] = set()
        self._watchers: list[tuple[str, asyncio.Future[Exit]]] = []

    @property
    def id(self) -> str:
        return self.record.id

    def watch(self, condition: str) -> asyncio.Future[Exit]:
        """A future of an exit: `not-running` (at once if so, else the next one, also of a workload that is started again then),
        `next-exit`, `removed`."""
        future: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        if condition == "not-running" and not self.record.status.is_up:
            future.set_result(self.last_exit())
        else:
            self._watchers.append((condition, future))
            future.add_done_callback(self._forget_watcher)
        return future

    def last_exit(self) -> Exit:
        r = self.record
        return Exit(r.exit_code, r.started, r.finished, r.oom_killed, r.error)

    def tell(self, exit_: Exit, *conditions: str) -> None:
        """Wake who waits for one of the conditions."""
        for condition, future in list(self._watchers):
            if condition in conditions and not future.done():
                future.set_result(exit_)

    def drop_held(self) -> None:
        """Hang up on clients that were attached to a program that will not run."""
        for connection, _ in self.held:
            os.close(connection.fd)
        self.held.clear()

    def _forget_watcher(self, future: asyncio.Future[Exit]) -> None:
        self._watchers = [(c, f) for c, f in self._watchers if f is not future]


class Workloads:
    """All of them, in memory as on disk. Changes are written before they are seen."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._by_id: dict[str, Live] = {}
        self._by_name: dict[str, Live] = {}
        self._unsaved: set[Live] = set()

    def load(self) -> None:
        """Read the records. Raises what `Records.workloads` does."""
        for record in self._records.workloads():
            self._keep(Live(record))

    def __iter__(self) -> Iterator[Live]:
        return iter(list(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)

    def by_id(self, workload: str) -> Live | None:
        return self._by_id.get(workload)

    def has_name(self, name: str) -> bool:
        return name in self._by_name

    def find(self, ref: str) -> Live:
        """By id, by name, by the unique beginning of an id: in this order, as Docker does. Raises NotFound or Conflict."""
        bare = ref.removeprefix("/")
        found = self._by_id.get(bare) or self._by_name.get(bare)
        if found is not None:
            return found
        matching = [live for known, live in self._by_id.items() if known.startswith(bare)] if bare else []
        if len(matching) > 1:
            raise Conflict(f"multiple containers start with {ref}", hint="give more of the id")
        if not matching:
            raise NotFound(f"No such container: {ref}", hint="bothy ps -a lists them")
        return matching[0]

    def check_name(self, name: str) -> None:
        """Raises Conflict for a name in use, in Docker's words, which clients look for."""
        if holder := self._by_name.get(name):
            raise Conflict(
                f'Conflict. The container name "/{name}" is already in use by container "{holder.id}". '
                "You have to remove (or rename) that container to be able to reuse that name."
            )

    def insert(self, record: Workload) -> Live:
        """Write and keep a new one. Raises Conflict for a name in use, Unavailable; then nothing has changed."""
        self.check_name(record.name)
        self._records.insert(record)
        live = Live(record)
        self._keep(live)
        return live

    def change(self, live: Live, **changes: Any) -> Workload:
        """Write a new state of a workload, then show it. Raises Unavailable; then the old one stands."""
        record = dataclasses.replace(live.record, **changes)
        self._records.save_state(record)
        self._show(live, record)
        self._unsaved.discard(live)
        if self._unsaved:
            self.save_again()
        return record

    def amend(self, live: Live, **changes: Any) -> Workload:
        """`change` for what was asked for. Raises Unavailable; then nothing has changed."""
        record = dataclasses.replace(live.record, **changes)
        self._records.save(record)
        self._show(live, record)
        self._unsaved.discard(live)
        return record

    def note(self, live: Live, **changes: Any) -> Workload:
        """`change` for what has happened already and can not be refused: shown even where it can not be written yet.

        Until then a keeper's folder (or its absence) tells the next daemon the same.
        """
        try:
            return self.change(live, **changes)
        except BothyError as exc:
            _log.error("the state of %s is not on disk yet: %s", live.id[:12], exc)
            self._unsaved.add(live)
            return self.show(live, **changes)

    def show(self, live: Live, **changes: Any) -> Workload:
        """`change` in memory only: for a state that the next write or the next daemon finds by itself."""
        record = dataclasses.replace(live.record, **changes)
        self._show(live, record)
        return record

    def save_again(self) -> None:
        """Write what `note` could not; done whenever something else could be written."""
        for live in list(self._unsaved):
            try:
                self._records.save_state(live.record)
            except BothyError:
                return
            self._unsaved.discard(live)

    def forget(self, live: Live) -> None:
        """Delete the record: the end of a removal. Raises Unavailable; then it is still there."""
        self._records.delete(live.id)
        self._by_id.pop(live.id, None)
        self._by_name.pop(live.record.name, None)
        self._unsaved.discard(live)
        live.removed = True

    def with_status(self, *states: Status) -> int:
        return sum(live.record.status in states for live in self._by_id.values())

    def _keep(self, live: Live) -> None:
        self._by_id[live.id] = live
        self._by_name[live.record.name] = live

    def _show(self, live: Live, record: Workload) -> None:
        if record.name != live.record.name:
            self._by_name.pop(live.record.name, None)
            self._by_name[record.name] = live
        live.record = record
