"""Health checks: a program of the image is run in the workload now and then, and what it says is the workload's health.

    start ── starting ──▶ healthy ◀──▶ unhealthy ── on-failure: none │ kill │ restart │ stop
                │  probes at 0.1, 0.2, 0.4 … s until the first interval is over: a success counts, a failure does not
                └─ then one each interval (the start interval within the start period); `retries` failures in a row

Docker waits for a whole interval before it looks for the first time; here a program that is ready at once is healthy at once.
The states, the words and the shape of the log are those of the Docker Engine API (`State.Health`).
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bothy.engine import names, spec, times
from bothy.engine.model import Config, Connection, ExecRequest, Health, Healthcheck, HealthCheckResult, Status
from bothy.errors import BothyError, Invalid
from bothy.keeper.model import Client, ExecPlan
from bothy.log import logger

if TYPE_CHECKING:
    from bothy.engine.hall import Hall
    from bothy.engine.workloads import Live

STARTING, HEALTHY, UNHEALTHY, NONE = "starting", "healthy", "unhealthy", "none"
ACTIONS = ("", "none", "kill", "restart", "stop")
_log = logger("engine")
_SECOND = 10**9
_INTERVAL, _TIMEOUT, _START_INTERVAL, _RETRIES = 30 * _SECOND, 30 * _SECOND, 5 * _SECOND, 3
_SHORTEST = 10**6
_FIRST_LOOK = 0.1
_LOGGED = 5
_OUTPUT = 4096
_GRACE = 5.0

Verb = Callable[["Hall", "Live"], Coroutine[Any, Any, None]]


def check(asked: Healthcheck | None, on_failure: str) -> None:
    """Raises Invalid for durations and words that Docker refuses too."""
    if on_failure not in ACTIONS:
        raise Invalid(f"invalid health-on-failure action '{on_failure}'", hint=f"known: {', '.join(ACTIONS[1:])}")
    if asked is None:
        return
    for name in ("interval", "timeout", "start_period", "start_interval"):
        value = getattr(asked, name)
        if value and value < _SHORTEST:
            raise Invalid(f"{''.join(part.title() for part in name.split('_'))} in Healthcheck cannot be less than 1ms")
    if asked.retries < 0:
        raise Invalid("Retries in Healthcheck cannot be negative")
    if asked.test and asked.test[0] not in ("NONE", "CMD", "CMD-SHELL"):
        raise Invalid(f"unknown type '{asked.test[0]}' in healthcheck", hint="use NONE, CMD or CMD-SHELL")


def command(config: Config) -> list[str]:
    """The argv of a probe; empty where the workload has no health check."""
    test = config.healthcheck.test if config.healthcheck else []
    if len(test) < 2:
        return []
    if test[0] == "CMD-SHELL":
        return [*(config.shell or ["/bin/sh", "-c"]), test[1]]
    return list(test[1:]) if test[0] == "CMD" else []


def judge(health: Health, result: HealthCheckResult, *, retries: int, counts: bool) -> Health:
    """The health after one more probe. `counts`: a failure is one (it is not while the workload is given time to start)."""
    log = [*health.log, result][-_LOGGED:]
    if result.exit_code == 0:
        return Health(HEALTHY, 0, log)
    streak = health.failing_streak + counts
    status = UNHEALTHY if counts and streak >= retries else health.status
    return Health(status, streak, log)


class Monitor:
    """Watches one running workload, from `begin` to `end`; there is none for workloads without a check."""

    def __init__(self, hall: Hall, live: Live, on_failure: Mapping[str, Verb]) -> None:
        asked = live.record.config.healthcheck or Healthcheck()
        self._hall, self._live = hall, live
        self._on_failure = on_failure
        self._command = command(live.record.config)
        self._interval = (asked.interval or _INTERVAL) / _SECOND
        self._timeout = (asked.timeout or _TIMEOUT) / _SECOND
        self._start_period = asked.start_period / _SECOND
        self._start_interval = (asked.start_interval or _START_INTERVAL) / _SECOND
        self._retries = asked.retries or _RETRIES
        self._exits: dict[str, asyncio.Future[int]] = {}
        self._begun = asyncio.get_running_loop().time()
        self._task = asyncio.create_task(self._watch(), name=f"the health of {live.id[:12]}")

    def exited(self, exec_id: str, code: int) -> bool:
        """A keeper says that an exec has ended; whether it was a probe of ours."""
        future = self._exits.get(exec_id)
        if future is not None and not future.done():
            future.set_result(code)
        return future is not None

    def end(self) -> None:
        """Look no more. A probe that runs is left to the workload's end."""
        self._task.cancel()

    @property
    def _age(self) -> float:
        return asyncio.get_running_loop().time() - self._begun

    async def _watch(self) -> None:
        look = _FIRST_LOOK
        while look < self._interval and self._status == STARTING:
            await asyncio.sleep(max(0.0, look - self._age))
            await self._look(early=True)
            look *= 2
        await asyncio.sleep(max(0.0, self._interval - self._age) if self._status == STARTING else self._interval)
        while True:
            await self._look(early=False)
            starting = self._status == STARTING and self._age < self._start_period
            await asyncio.sleep(min(self._start_interval, self._interval) if starting else self._interval)

    @property
    def _status(self) -> str:
        health = self._live.record.health
        return health.status if health else NONE

    async def _look(self, *, early: bool) -> None:
        """One probe, and what follows from it."""
        if self._live.record.status is not Status.RUNNING:
            return  # paused: it is asked again when it goes on
        result = await self._probe()
        before = self._live.record.health
        if before is None or self._live.record.status is not Status.RUNNING or (early and result.exit_code):
            return
        counts = not (before.status == STARTING and self._age < self._start_period)
        after = judge(before, result, retries=self._retries, counts=counts)
        self._hall.workloads.show(self._live, health=after)
        if after.status != before.status:
            self._hall.tell(self._live.record, f"health_status: {after.status}")
            action = self._on_failure.get(self._live.record.host_config.health_on_failure)
            if after.status == UNHEALTHY and action is not None:
                self._hall.background(action(self._hall, self._live), f"what follows on the failing health of {self._live.id[:12]}")

    async def _probe(self) -> HealthCheckResult:
        """Run the check once. Whatever goes wrong with it is a failure of the check."""
        start, exec_id = times.now(), names.new_id()
        self._exits[exec_id] = asyncio.get_running_loop().create_future()
        output = bytearray()
        try:
            code = await asyncio.wait_for(self._run(exec_id, output), self._timeout)
        except TimeoutError:
            await self._kill(exec_id)
            return HealthCheckResult(start, times.now(), -1, f"Health check exceeded timeout ({self._timeout:g}s)")
        except BothyError as exc:
            return HealthCheckResult(start, times.now(), -1, exc.message)
        finally:
            del self._exits[exec_id]
        return HealthCheckResult(start, times.now(), code, bytes(output[:_OUTPUT]).decode(errors="replace"))

    async def _run(self, exec_id: str, output: bytearray) -> int:
        """The probe's exit code; `output` gets the beginning of what it writes. Raises what kept it from running."""
        live, loop = self._live, asyncio.get_running_loop()
        keeper = live.keeper
        if keeper is None:
            raise Invalid("the workload does not run")
        process = spec.exec_process(live.record, ExecRequest(cmd=self._command))
        text = " ".join(self._command)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with contextlib.closing(ours):
            with contextlib.closing(theirs):
                self._hall.tell(live.record, f"exec_create: {text}", execID=exec_id)
                self._hall.tell(live.record, f"exec_start: {text}", execID=exec_id)
                await keeper.exec(ExecPlan(exec_id, process), Connection(theirs.fileno()), Client())
            ours.setblocking(False)
            while data := await loop.sock_recv(ours, _OUTPUT):
                if len(output) < _OUTPUT:
                    output += data
            return await self._exits[exec_id]

    async def _kill(self, exec_id: str) -> None:
        """End a probe that takes too long, and wait a moment for it: the next one shall not meet it."""
        keeper = self._live.keeper
        future = self._exits.setdefault(exec_id, asyncio.get_running_loop().create_future())
        try:
            if keeper is not None:
                await keeper.signal(signal.SIGKILL, exec_id)
                await asyncio.wait([future], timeout=_GRACE)
        except BothyError:
            pass


class Healths:
    """The monitors of all workloads that run. `on_failure`: the verbs that `--health-on-failure` names."""

    def __init__(self, hall: Hall, on_failure: Mapping[str, Verb]) -> None:
        self._hall = hall
        self._on_failure = on_failure
        self._monitors: dict[str, Monitor] = {}

    def begin(self, live: Live) -> None:
        """The workload runs (again): from here on it is looked at, if it has a check."""
        self.end(live)
        if command(live.record.config):
            log = live.record.health.log if live.record.health else []
            self._hall.workloads.show(live, health=Health(STARTING, 0, log))
            self._monitors[live.id] = Monitor(self._hall, live, self._on_failure)
        elif live.record.health is not None:
            self._hall.workloads.show(live, health=None)

    def end(self, live: Live) -> None:
        """It does not run any more: nobody is looked at, and nobody is healthy."""
        monitor = self._monitors.pop(live.id, None)
        if monitor is not None:
            monitor.end()
            if live.record.health is not None and not live.removed:
                self._hall.workloads.show(live, health=replace(live.record.health, status=UNHEALTHY))

    def exited(self, live: Live, exec_id: str, code: int) -> None:
        """A keeper says that an exec has ended; it may have been a probe."""
        monitor = self._monitors.get(live.id)
        if monitor is not None:
            monitor.exited(exec_id, code)

    def close(self) -> None:
        """Look at nobody any more; what is known stays as it is."""
        for monitor in self._monitors.values():
            monitor.end()
        self._monitors.clear()
