"""start: a record becomes a running program. Written first as `starting`, then made; a failure takes everything back.

    lease, id range, ports ─▶ record (starting) ─▶ small files, plan ─▶ keeper ─▶ record (running)
         └──────────── undone in the opposite order when a later step fails ────────────┘

Killed anywhere in between: recovery finds a record that says `starting` and either a keeper, which it asks, or none.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from bothy.engine import secrets, spec, times
from bothy.engine.containers import create, ending, joining, links, mounting, network, plans, publishing, sharing
from bothy.engine.execs import start_code
from bothy.engine.hall import Hall
from bothy.engine.keepers import Keeper, Running
from bothy.engine.model import Status, Wall, Workload
from bothy.engine.workloads import Live
from bothy.errors import BothyError, Broken, Conflict, NotFound, Unavailable, Unchanged
from bothy.jsonable import PLAIN
from bothy.keeper import exits
from bothy.keeper.model import KeeperPlan, LogPlan
from bothy.networks.model import Lease

Progress = Callable[[str], None]


async def start(hall: Hall, live: Live) -> None:
    """Run it. Clients that were attached before are served by its keeper from the first byte on.

    Raises Unchanged (it runs), Conflict (paused, being removed), Invalid (the program can not be run: `stage` exec), and whatever
    keeps it from running; then it is `created` or `exited` as before, with the exit code and the error of this attempt, and with
    auto-remove it is gone.
    """
    async with live.lock:
        _check(live)
        anew(hall, live)
        await run(hall, live)


async def start_again(hall: Hall, live: Live) -> None:
    """Run it because its restart policy says so, unless it was stopped or removed meanwhile. A failure is not tried again.

    Waits for the end of a recovery, which takes everything for a leftover that it does not know.
    """
    await hall.recovered.wait()
    async with live.lock:
        if live.record.status is not Status.RESTARTING or live.removed or hall.closing:
            return
        live.restart_timer = None
        await run(hall, live)


def anew(hall: Hall, live: Live) -> None:
    """A start by hand: whatever its restart policy has counted and waited for begins anew."""
    live.stopping = False
    live.restart_delay = 0.0
    hall.workloads.show(live, restart_count=0)


def _check(live: Live) -> None:
    record = live.record
    if live.removed:
        raise NotFound(f"No such container: {record.id}")
    if record.status is Status.PAUSED:
        raise Conflict("cannot start a paused container, try unpause instead")
    if record.status in (Status.REMOVING, Status.DEAD):
        raise Conflict("container is marked for removal and cannot be started")
    if record.status in (Status.RUNNING, Status.STARTING):
        raise Unchanged(f"container {record.name} is already running")
    if record.status is Status.RESTARTING:
        ending.cancel_restart(live)


async def run(hall: Hall, live: Live) -> None:
    """`start` with the lock held and the state checked."""
    before = live.record
    await ending.settle(live)
    try:
        running, listener, keeper = await _launch(hall, live)
    except BaseException as exc:
        _failed(hall, live, before.status, exc)
        raise
    live.keeper = keeper
    live.ended = asyncio.get_running_loop().create_future()
    live.oom = False
    for connection, _ in live.held:
        os.close(connection.fd)
    live.held.clear()
    listener.starting = False
    changes: dict[str, Any] = {
        "status": Status.RUNNING, "pid": running.pid, "started": running.started or times.now(), "finished": "",
        "exit_code": 0, "error": "", "oom_killed": False, "manually_stopped": False,
    }  # fmt: skip
    if running.warnings:
        changes["warnings"] = list(dict.fromkeys([*live.record.warnings, *running.warnings]))
    if listener.early is None:
        hall.workloads.note(live, **changes)
    else:
        hall.workloads.show(live, **changes)
    hall.tell(live.record, "start")
    if listener.early is not None:
        ending.finish(hall, live, listener.early)
        return
    hall.healths.begin(live)
    if live.record.endpoints:
        hall.networks.attached(live.id)
        links.refresh(hall, live.record)


def _failed(hall: Hall, live: Live, before: Status, exc: BaseException) -> None:
    """A start that came to nothing: everything has been undone, this is the word that is left of it."""
    stage, errno = (exc.stage, exc.errno) if isinstance(exc, BothyError) else ("", 0)
    code = start_code(stage, errno)
    status = Status.CREATED if before is Status.CREATED else Status.EXITED
    message = exc.message if isinstance(exc, BothyError) else f"{type(exc).__name__}: {exc}"
    hall.workloads.note(live, status=status, exit_code=code, error=message, id_base=0, endpoints=[], ports=[], pid=0)
    live.drop_held()
    hall.tell(live.record, "die", exitCode=str(code))
    live.tell(live.last_exit(), "not-running")
    if live.record.host_config.auto_remove:
        hall.background(hall.auto_remove(hall, live), f"the removal of {live.id[:12]}")


async def _launch(hall: Hall, live: Live) -> tuple[Running, ending.KeeperListener, Keeper]:
    """Everything up to the answer of the keeper, or nothing."""
    await mounting.ensure(hall, live.record)
    async with contextlib.AsyncExitStack() as opened:
        undo = opened.enter_context(contextlib.ExitStack())
        undo.callback(mounting.release, hall, live.id)
        await mounting.hold(hall, live.record)
        joined = await opened.enter_async_context(joining.joined(hall, live.record))
        leases = network.take(hall, live.record, undo)
        id_base = _id_range(hall, live.record, joined.id_base)
        undo.callback(hall.ranges.give_back, id_base)
        endpoints = network.endpoints(hall, live.record, leases)
        published = publishing.publish(hall, live.record) if leases else []
        hall.workloads.change(live, status=Status.STARTING, id_base=id_base, endpoints=endpoints, ports=published)
        for endpoint in endpoints:
            network.announce(hall, live.record, "connect", endpoint)
        plan = await _plan(hall, live, leases, joined)
        undo.callback(ending.remove_keeper_folder, hall, live.id)
        undo.callback(network.forget_names, hall, live.id)
        network.tell_names(hall, live.record)
        result = await _keep(hall, live, plan, joined.network)
        undo.pop_all()
    if plan.machine is not None:
        hall.spares.order(live.record, plan.machine)
    return result


def _id_range(hall: Hall, record: Workload, lent: int) -> int:
    """The first id of its range: its own, the one of who it joins, or 0 for the host's ids."""
    if record.wall is Wall.VM or not spec.has_user_namespace(record.host_config):
        return 0
    if lent:
        hall.ranges.adopt(lent)
        return lent
    return hall.spawner.take_range()


async def _plan(hall: Hall, live: Live, leases: list[Lease], joined: joining.Joined) -> KeeperPlan:
    """The keeper's plan; makes the workload's folder and its small files."""
    record, settings = live.record, hall.settings
    folder = hall.paths.container(live.id)
    shared = sharing.is_shared(record.host_config)
    files = sharing.small_files(hall, record) if shared else network.small_files(hall, record, leases)
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        peer = sharing.target(hall, record.host_config).record.id_base if shared else -1
        place = spec.Place(attachments=hall.networks.attachments(live.id), peer=peer, joined=joined.paths)
        container = vm = None
        if record.wall is Wall.CONTAINER:
            for name in ("upper", "work"):
                _mkdir(f"{folder}/{name}")
            for name, text in files.items():
                _write(f"{folder}/{name}", text)
            container = await plans.container_plan(hall, record, place)
            container = replace(container, secrets=secrets.files(hall, record.host_config))
        else:
            vm = await plans.machine_plan(hall, record, place, files)
            vm = replace(vm, secrets=secrets.files(hall, record.host_config))
    except OSError as exc:
        raise Unavailable(f"{exc.filename or folder}: {exc.strerror}", errno=exc.errno or 0, hint=_disk_hint(exc)) from exc
    size, number = create.log_size_and_files(record.host_config, settings.log_size, settings.log_files)
    return KeeperPlan(
        id=live.id,
        log=LogPlan(str(folder / "container.log"), create.log_driver(record.host_config), size, number),
        container=container,
        machine=vm,
        tty=record.config.tty,
        stdin=record.config.open_stdin,
        stdin_once=record.config.stdin_once,
    )


def write_plan(hall: Hall, plan: KeeperPlan, *, again: bool = False) -> str:
    """The keeper's folder with its plan in it; `again`: there is a keeper in it that will read the new plan. Raises Unavailable."""
    folder = str(hall.paths.keeper(plan.id))
    try:
        if not again:
            _make_anew(hall, plan.id, folder)
        _write(f"{folder}/spec.json", PLAIN.dumps(plan), 0o600)
    except OSError as exc:
        raise Unavailable(f"{exc.filename or folder}: {exc.strerror}", errno=exc.errno or 0, hint=_disk_hint(exc)) from exc
    return folder


def _make_anew(hall: Hall, workload: str, folder: str) -> None:
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        ending.remove_keeper_folder(hall, workload)
        os.mkdir(folder, 0o700)


async def _keep(hall: Hall, live: Live, plan: KeeperPlan, namespace: str) -> tuple[Running, ending.KeeperListener, Keeper]:
    """Have a keeper forked, or take one that waits, and let it start the program. One that vanishes without a word (the spawner was
    killed under it) is tried once more, unless the program may
    have run already."""
    record = live.record
    for attempt in (1, 2):
        await hall.spawner.ready()
        listener = ending.KeeperListener(hall, live)
        waiting = await hall.spares.take(plan.machine) if plan.machine is not None and attempt == 1 else None
        folder = write_plan(hall, plan, again=waiting is not None)
        sock = waiting or hall.spawner.keeper(live.id, folder, record.id_base, namespace)
        keeper = Keeper(live.id, folder, sock, listener)
        try:
            return await keeper.start(live.held), listener, keeper
        except Unavailable as exc:
            keeper.close()
            begun = exits.has_begun(folder)
            await asyncio.to_thread(ending.kill_left, hall.paths.scope, live.id)
            if begun:
                message = f"the keeper of {record.name} was killed while its program started"
                raise Unavailable(message, hint="the program may have run; start it again if that does no harm") from exc
            if waiting is not None and plan.machine is not None:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(plan.machine.scratch.path)  # nothing of a program is on it yet
            if attempt == 2:
                raise
            await asyncio.sleep(0)  # the spawner's successor is started by the end of the old one's channel
        except BaseException:
            keeper.close()
            raise
    raise Broken("not reached")


def _mkdir(path: str) -> None:
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        pass


def _write(path: str, text: str, mode: int = 0o644) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        data = text.encode()
        while data:
            data = data[os.write(fd, data) :]
    finally:
        os.close(fd)


def _disk_hint(exc: OSError) -> str:
    return "free some space on the disk that holds BOTHY_ROOT or BOTHY_RUN" if exc.errno == 28 else ""
