"""Machines that wait: gone on from their template ahead of need, so that the next `run --vm` of that image and size is quick.

    a machine has started ──▶ a spare of the same image and size, with the id that the next such workload will have
    create ── claim ──▶ the workload gets that id
    start  ── take  ──▶ the waiting keeper gets the real plan, and is asked to start as any other

A spare that nobody wants for some minutes, that does not fit after all, or whose keeper dies is let go; so are all when the
daemon ends or dies, as a spare's keeper ends with its socket. It has no record: what a killed daemon leaves of it is swept by
the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from dataclasses import dataclass, replace

from bothy.engine import names, spec, trees
from bothy.engine.containers import ending
from bothy.engine.containers.start import write_plan
from bothy.engine.hall import Hall
from bothy.engine.model import HostConfig, Workload
from bothy.errors import BothyError
from bothy.keeper.model import KeeperPlan, LogPlan
from bothy.linux import channel
from bothy.log import logger
from bothy.machines import templates
from bothy.machines.model import Disk, MachinePlan

_log = logger("engine")
_DELAY = 0.05  # seconds from a start to the making of a spare: the program that was started goes first
_KEPT = 600.0
_CLAIM_KEPT = 60.0
_PATIENCE = 5.0


@dataclass
class Spare:
    """`image` is its id; `plan` is what it was launched with; `ready`: it has gone through its rehearsal."""

    image: str
    plan: MachinePlan
    sock: channel.Socket
    timer: asyncio.TimerHandle
    ready: bool = False


class Spares:
    """At most one spare waits at a time: of what was started last."""

    def __init__(self, hall: Hall) -> None:
        self._hall = hall
        self._waiting: Spare | None = None
        self._claimed: dict[str, Spare] = {}
        self._ending: dict[str, asyncio.Event] = {}
        self._next: asyncio.TimerHandle | None = None

    @property
    def ready(self) -> int:
        """How many wait and are ready."""
        return int(self._waiting is not None and self._waiting.ready)

    def claim(self, image: str, host: HostConfig, *, has_mounts: bool) -> str:
        """The id for a new machine that the waiting spare can become, on whatever networks; empty if the template has to do."""
        spare = self._waiting
        if spare is None or has_mounts:
            return ""
        settings = self._hall.settings
        size = spec.vcpus(host, settings.machine_cpus), templates.memory_class(spec.machine_memory(host, settings.machine_memory))
        if (spare.image, spare.plan.vcpus, spare.plan.memory) != (image, *size):
            return ""
        self._waiting = None
        self._claimed[spare.plan.id] = spare
        spare.timer.cancel()
        spare.timer = asyncio.get_running_loop().call_later(_CLAIM_KEPT, self.forget, spare.plan.id)
        return spare.plan.id

    def is_claimed(self, workload: str) -> bool:
        """Whether a spare waits to become this workload; its disk is in use then."""
        return workload in self._claimed

    async def take(self, plan: MachinePlan) -> channel.Socket | None:
        """The control socket of the spare that becomes the machine of this plan; None if there is none that fits (any more).

        Nothing is left then of one that was claimed.
        """
        spare = self._claimed.pop(plan.id, None)
        if spare is not None and _hardware(spare.plan) == _hardware(plan):
            self._release(spare)
            return spare.sock
        if spare is not None:
            self._let_go(spare)
        if plan.id in self._ending:
            await self._ending[plan.id].wait()
        return None

    def forget(self, workload: str) -> None:
        """Let go of the spare that a workload has claimed, if it has."""
        spare = self._claimed.pop(workload, None)
        if spare is not None:
            self._let_go(spare)

    def order(self, record: Workload, plan: MachinePlan) -> None:
        """A machine has started: have another one like it wait."""
        if self._hall.settings.spares < 1 or self._hall.closing or plan.shares:
            return
        if self._next is not None:
            self._next.cancel()
        self._next = asyncio.get_running_loop().call_later(_DELAY, self._replace, record.image, plan)

    async def close(self) -> None:
        """Let go of all, and wait until they are gone."""
        if self._next is not None:
            self._next.cancel()
        for workload in tuple(self._claimed):
            self.forget(workload)
        self._drop()
        await asyncio.gather(*(each.wait() for each in self._ending.values()))

    def _replace(self, image: str, plan: MachinePlan) -> None:
        self._next = None
        old = self._waiting
        if old is not None and old.image == image and _kind(old.plan) == _kind(plan):
            return
        self._drop()
        if self._hall.closing or _available_memory() < 2 * plan.memory:
            return
        try:
            self._make(image, plan)
        except (BothyError, OSError) as exc:
            _log.warning("no spare machine: %s", exc)

    def _make(self, image: str, model: MachinePlan) -> None:
        hall, ident = self._hall, names.new_id()
        with contextlib.ExitStack() as undo:
            folder = hall.paths.container(ident)
            undo.callback(trees.delete, str(folder))
            os.makedirs(folder, mode=0o711)
            plan = replace(
                model,
                id=ident,
                scratch=Disk(str(folder / os.path.basename(model.scratch.path))),
                attachments=[],
                files={},
                cgroup=f"/{hall.paths.scope}/{ident}",
                warnings=[],
            )
            undo.callback(ending.remove_keeper_folder, hall, ident)
            where = write_plan(hall, KeeperPlan(ident, LogPlan(""), machine=plan, spare=True))
            sock = hall.spawner.keeper(ident, where, 0, "host")
            undo.pop_all()
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        spare = self._waiting = Spare(image, plan, sock, loop.call_later(_KEPT, self._drop))
        loop.add_reader(sock, self._heard, spare)

    def _heard(self, spare: Spare) -> None:
        """Its keeper says that it is ready, or is gone."""
        try:
            message, fds = channel.receive(spare.sock)
        except BlockingIOError:
            return
        except OSError:
            message, fds = None, []
        channel.close_all(fds)
        if message is not None:
            spare.ready = spare.ready or message.get("event") == "ready"
        elif self._waiting is spare:
            self._drop()
        else:
            self.forget(spare.plan.id)

    def _drop(self) -> None:
        """Let go of the one that waits."""
        spare, self._waiting = self._waiting, None
        if spare is not None:
            self._let_go(spare)

    def _release(self, spare: Spare) -> None:
        spare.timer.cancel()
        asyncio.get_running_loop().remove_reader(spare.sock)

    def _let_go(self, spare: Spare) -> None:
        """Have nothing left of it soon."""
        self._release(spare)
        self._ending[spare.plan.id] = asyncio.Event()
        self._hall.background(self._end(spare), f"the end of spare machine {spare.plan.id[:12]}")

    async def _end(self, spare: Spare) -> None:
        hall, ident = self._hall, spare.plan.id
        try:
            await _hang_up(spare.sock)
            await asyncio.to_thread(ending.kill_left, hall.paths.scope, ident)
            ending.remove_keeper_folder(hall, ident)
            live = hall.workloads.by_id(ident)
            if live is None:
                await trees.empty(trees.discard(str(hall.paths.container(ident))))
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(spare.plan.scratch.path)  # nothing of a program is on it yet
        finally:
            self._ending.pop(ident).set()


async def _hang_up(sock: channel.Socket) -> None:
    """Have the keeper at the other end let go of its machine, and wait until it has ended, as long as that may take."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def heard() -> None:
        try:
            if not sock.recv(4096):
                ended.set()
        except BlockingIOError:
            pass
        except OSError:
            ended.set()

    loop.add_reader(sock.fileno(), heard)
    try:
        sock.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(_PATIENCE):
            await ended.wait()
    except TimeoutError:
        _log.warning("the keeper of a spare machine does not end")
    except OSError:
        pass  # it has ended already
    finally:
        loop.remove_reader(sock.fileno())
        sock.close()


def _kind(plan: MachinePlan) -> tuple[object, ...]:
    """What makes a spare worth keeping for another machine."""
    return plan.template, plan.vcpus, plan.memory, plan.root.path, plan.spec.linux.resources.cpu


def _hardware(plan: MachinePlan) -> tuple[object, ...]:
    """What can not be changed once QEMU runs."""
    return (*_kind(plan), plan.id, plan.scratch, plan.shares, plan.cgroup)


def _available_memory() -> int:
    """Bytes (proc(5), meminfo)."""
    with open("/proc/meminfo") as file:
        return next((int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable:")), 0)
