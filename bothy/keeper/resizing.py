"""The limits of a machine while it runs: processors by QEMU's control group, processes by the guest's, memory by its balloon.

    memory   less: the guest fills a balloon, whose pages QEMU gives back to the host; more: it lets air out of it

A machine is born with a number of virtual processors and with memory, and has never more than that until it is started again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from bothy.containers.cgroups.hierarchies import Cgroup
from bothy.errors import StageError
from bothy.keeper import workload as wall
from bothy.keeper.loop import Loop, Timer
from bothy.machines.launch import Clone
from bothy.machines.model import MachinePlan
from bothy.oci.runtime import Cpu, Memory, Pids, Resources

PATIENCE = 4.0  # seconds without a change of the balloon's size, of which QEMU tells once in a second
_LIMIT = 10.0
_MIB = 1 << 20
_PERIOD = 100_000  # microseconds, where none is said


class Machine(Protocol):
    """What it needs of the machine."""

    def ask(self, message: dict[str, Any], reply: wall.Done, *, limit: float = 0) -> None:
        """Have the agent do something."""

    def order(self, name: str, done: wall.Done, **arguments: Any) -> None:
        """A command for QEMU. Raises StageError when it has ended."""


class Limits:
    """`memory`: what its programs may have now, in bytes."""

    def __init__(self, loop: Loop, machine: Machine, plan: MachinePlan, cgroup: Cgroup | None, clone: Clone) -> None:
        self._loop = loop
        self._machine = machine
        self._plan = plan
        self._cgroup = cgroup
        self._all, self._own = clone.memory, clone.own
        self._grown: Callable[[int], None] | None = None
        self.memory = plan.memory

    def update(self, resources: Resources, done: wall.Done) -> None:
        """Set the limits that are given. Raises StageError for what can not be, as `done` may be told; then memory is as it was."""
        self._check(resources)
        if resources.cpu is not None and self._cgroup is not None:
            try:
                self._cgroup.update(Resources(cpu=resources.cpu))
            except OSError as exc:
                raise StageError("cgroup", exc.strerror or str(exc), errno=exc.errno or 0, path=str(exc.filename or "")) from exc

        def counted(answer: dict[str, Any] | BaseException) -> None:
            if isinstance(answer, BaseException):
                done(answer)
            else:
                self._set_memory(resources.memory, done)

        if resources.pids is None:
            counted({})
        else:
            self._machine.ask({"op": "limit", "pids": _processes(resources.pids)}, counted, limit=_LIMIT)

    def balloon_changed(self, size: object) -> None:
        """QEMU tells how much memory the guest has now."""
        if self._grown is not None and isinstance(size, int):
            self._grown(size)

    def _check(self, resources: Resources) -> None:
        wanted = resources.memory.limit if resources.memory is not None else None
        if wanted is not None and wanted > self._plan.memory:
            most = self._plan.memory // _MIB
            raise StageError("memory", f"a machine can not grow beyond the {most} MiB that it was started with: stop it first")
        if resources.cpu is not None and _share(resources.cpu) > self._plan.vcpus:
            raise StageError("cpu", f"a machine has the {self._plan.vcpus} CPUs that it was started with: stop it first for more")

    def _set_memory(self, memory: Memory | None, done: wall.Done) -> None:
        wanted = memory.limit if memory is not None else None
        if wanted is None:
            done({})
            return
        before, after = self.memory, self._plan.memory if wanted < 0 else wanted
        if self._target(before) == self._target(after):
            self.memory = after
            done({})
            return
        if self._grown is not None:
            done(StageError("memory", "its memory is being changed"))
            return

        def measured(answer: dict[str, Any] | BaseException) -> None:
            # A balloon that is too big for what is in use would have the guest kill programs for want of memory.
            used = answer if isinstance(answer, BaseException) else _in_use(answer)
            if isinstance(used, BaseException):
                done(used)
            elif used > after:
                done(StageError("memory", f"the machine's programs use {used // _MIB} MiB, which is more than that"))
            else:
                self._blow(after, ended)

        def ended(outcome: dict[str, Any] | BaseException) -> None:
            if isinstance(outcome, BaseException):
                self._blow(before, lambda _: done(outcome))
            else:
                self.memory = after
                done({})

        self._machine.ask({"op": "stats"}, measured, limit=_LIMIT)

    def _blow(self, memory: int, ended: wall.Done) -> None:
        """Have the balloon so big that so much is left for programs."""
        target = self._target(memory)
        timer: Timer | None = None

        def finish(outcome: dict[str, Any] | BaseException) -> None:
            if timer is not None:
                timer.cancel()
            self._grown = None
            ended(outcome)

        def grown(size: int) -> None:
            nonlocal timer
            if timer is not None:
                timer.cancel()
            if abs(size - target) < _MIB:
                finish({})
            else:
                timer = self._loop.later(
                    PATIENCE, lambda: finish(StageError("memory", "the machine's programs do not let go of it"))
                )

        def ordered(answer: dict[str, Any] | BaseException) -> None:
            if isinstance(answer, BaseException):
                finish(answer)

        self._grown = grown
        grown(0)
        self._try_order(memory, ordered)

    def _target(self, memory: int) -> int:
        """What the guest has when its programs may have so much."""
        return min(self._all, self._own + memory) if memory < self._plan.memory else self._all

    def _try_order(self, memory: int, done: wall.Done) -> None:
        try:
            self._machine.order("balloon", done, value=self._target(memory))
        except StageError as exc:
            done(exc)


def _in_use(stats: dict[str, Any]) -> int | StageError:
    """The bytes that the guest says its programs use, without files that it can read again."""
    try:
        memory = stats["memory_stats"]
        return int(memory["usage"]) - int(memory["stats"]["file"])
    except (KeyError, TypeError, ValueError):
        return StageError("memory", "the guest does not tell how much its programs use")


def _share(cpu: Cpu) -> float:
    """How many processors it may use at most; 0 where that is not limited."""
    return cpu.quota / (cpu.period or _PERIOD) if cpu.quota is not None and cpu.quota > 0 else 0


def _processes(pids: Pids) -> int:
    return max(0, pids.limit)
