"""stop, kill, restart, pause, unpause: a running workload is told something, and what it becomes is awaited."""

from __future__ import annotations

import asyncio
import signal as signals

from bothy.engine import merge
from bothy.engine.containers import ending
from bothy.engine.containers.start import anew, run
from bothy.engine.hall import Hall
from bothy.engine.keepers import Keeper
from bothy.engine.model import Status
from bothy.engine.workloads import Live
from bothy.errors import BothyError, Broken, Conflict, NotFound, Unavailable, Unchanged
from bothy.keeper.model import Exit

_KILL_SECONDS = 10.0


async def stop(hall: Hall, live: Live, timeout: int | None, word: str) -> None:
    """The stop signal, then SIGKILL after `timeout` seconds (None: the workload's own, negative: never). Returns when it has ended.

    Raises Unchanged when it does not run, Invalid for an unknown signal.
    """
    number, seconds = merge.stop_order(live.record.config, timeout, word)
    if await _give_up_restart(hall, live):
        return
    keeper, ended = await _running(live)
    if keeper is None or ended is None:
        raise Unchanged(f"container {live.record.name} is not running")
    _by_hand(hall, live)
    await _tell(keeper, number)
    hall.tell(live.record, "kill", signal=str(number))
    if live.record.status is Status.PAUSED:
        await _resume(hall, live, keeper)
    if not await _ends(ended, None if seconds < 0 else seconds):
        await _kill(hall, live, keeper, ended)
    hall.tell(live.record, "stop")


async def kill(hall: Hall, live: Live, word: str) -> None:
    """Send a signal; with SIGKILL it has ended on return. Raises Conflict when it does not run, Invalid for an unknown signal.

    A paused workload goes on for SIGKILL and its stop signal; other signals wait for it to be unpaused.
    """
    number = merge.signal_number(word or "KILL", signals.SIGKILL)
    if await _give_up_restart(hall, live):
        return
    keeper, ended = await _running(live)
    if keeper is None or ended is None:
        raise Conflict(f"cannot kill container: {live.record.name}: container {live.id} is not running")
    ends = number in (signals.SIGKILL, merge.signal_number(live.record.config.stop_signal))
    if ends:
        _by_hand(hall, live)
    if number == signals.SIGKILL:
        await _kill(hall, live, keeper, ended)
        return
    await _tell(keeper, number)
    hall.tell(live.record, "kill", signal=str(number))
    if ends and live.record.status is Status.PAUSED:
        await _resume(hall, live, keeper)


async def restart(hall: Hall, live: Live, timeout: int | None, word: str) -> None:
    """Stop it if it runs, then start it; a failure of the start leaves it stopped."""
    merge.stop_order(live.record.config, timeout, word)
    try:
        await stop(hall, live, timeout, word)
    except Unchanged:
        pass
    # With auto-remove the stop has begun its removal: Docker starts it again nevertheless, and so do we if we are first.
    async with live.lock:
        if live.removed:
            raise NotFound(f"No such container: {live.id}")
        if not live.record.status.is_up:
            anew(hall, live)
            await run(hall, live)
    hall.tell(live.record, "restart")


async def kill_unhealthy(hall: Hall, live: Live) -> None:
    """SIGKILL because its health check fails. Nobody wanted it down: its restart policy says what follows."""
    keeper, ended = await _running(live)
    if keeper is not None and ended is not None:
        await _kill(hall, live, keeper, ended)


async def restart_unhealthy(hall: Hall, live: Live) -> None:
    """`restart` because its health check fails."""
    await restart(hall, live, None, "")


async def stop_unhealthy(hall: Hall, live: Live) -> None:
    """`stop` because its health check fails; it stays down."""
    await stop(hall, live, None, "")


ON_FAILURE = {"kill": kill_unhealthy, "restart": restart_unhealthy, "stop": stop_unhealthy}


async def pause(hall: Hall, live: Live) -> None:
    """Freeze it. Raises Conflict when it does not run or is paused already."""
    async with live.lock:
        if live.record.status is Status.PAUSED:
            raise Conflict(f"container {live.record.name} is already paused")
        if live.record.status is not Status.RUNNING or live.keeper is None:
            raise Conflict(f"container {live.record.name} is not running")
        await live.keeper.pause()
        if live.record.status is Status.RUNNING:
            hall.workloads.note(live, status=Status.PAUSED)
            hall.tell(live.record, "pause")


async def unpause(hall: Hall, live: Live) -> None:
    """Thaw it. Raises Conflict when it is not paused."""
    async with live.lock:
        if live.record.status is not Status.PAUSED or live.keeper is None:
            raise Conflict(f"container {live.record.name} is not paused")
        await _resume(hall, live, live.keeper)


async def end(hall: Hall, live: Live) -> None:
    """Kill it if it runs, and wait for the end: for `rm -f`."""
    await _give_up_restart(hall, live)
    keeper, ended = await _running(live)
    if keeper is not None and ended is not None:
        live.stopping = True
        await _kill(hall, live, keeper, ended, discard=True)


async def _running(live: Live) -> tuple[Keeper | None, asyncio.Future[Exit] | None]:
    """The keeper of what runs, and the future of its end; a start that is under way is waited for."""
    if live.record.status is Status.STARTING:
        async with live.lock:
            pass
    return (live.keeper, live.ended) if live.record.status.can_signal else (None, None)


def _by_hand(hall: Hall, live: Live) -> None:
    """Its user wants it down: no restart policy brings it back, also not after a restart of the engine."""
    live.stopping = True
    policy = live.record.host_config.restart_policy.name
    if policy not in ("", "no") and not live.record.manually_stopped:
        hall.workloads.note(live, manually_stopped=True)


def _waits(live: Live) -> bool:
    return live.record.status is Status.RESTARTING


async def _give_up_restart(hall: Hall, live: Live) -> bool:
    """Have one that waits to be started again stay down. False: it does not wait (any more), a start of it has ended first."""
    if not _waits(live):
        return False
    async with live.lock:
        if not _waits(live):
            return False
        ending.cancel_restart(live)
        live.stopping = True
        hall.workloads.note(live, status=Status.EXITED, manually_stopped=True)
        live.tell(live.last_exit(), "not-running")
        hall.tell(live.record, "stop")
        return True


async def _tell(keeper: Keeper, number: int) -> None:
    """Send a signal; that it has ended just now is no failure."""
    try:
        await keeper.signal(number)
    except (Unavailable, Broken):
        pass


async def _kill(hall: Hall, live: Live, keeper: Keeper, ended: asyncio.Future[Exit], *, discard: bool = False) -> None:
    hall.tell(live.record, "kill", signal=str(int(signals.SIGKILL)))
    try:
        await keeper.kill(discard=discard)
    except (Unavailable, Broken):
        pass
    if not await _ends(ended, _KILL_SECONDS):
        raise Broken(f"container {live.record.name} does not die", hint="a process in it may wait for a device; see bothy top")


async def _resume(hall: Hall, live: Live, keeper: Keeper) -> None:
    try:
        await keeper.resume()
    except BothyError:
        if live.record.status is Status.PAUSED:
            raise
    if live.record.status is Status.PAUSED:
        hall.workloads.note(live, status=Status.RUNNING)
        hall.tell(live.record, "unpause")


async def _ends(ended: asyncio.Future[Exit], seconds: float | None) -> bool:
    """Whether it ends within so many seconds."""
    done, _ = await asyncio.wait([ended], timeout=seconds)
    return bool(done)
