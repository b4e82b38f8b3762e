"""The verbs, one after the other, on real containers."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from bothy.engine.keepers import Keeper, Running
from bothy.engine.model import Config, Connection, Event, ExecRequest, HostConfig, NetworkingConfig, RestartPolicy, Status
from bothy.errors import BothyError, Conflict, Invalid, NotFound, Unavailable, Unchanged
from bothy.keeper.model import Client
from tests.kernel.engine.conftest import Driver, Scenario
from tests.support.engine import parent_of

Play = Callable[[Scenario], None]


def test_create_start_wait_logs_remove(play: Play) -> None:
    async def scenario(d: Driver) -> None:
        workload = await d.create("sh", "-c", "echo out; echo err >&2; exit 7")
        assert workload.status is Status.CREATED
        waiting = d.engine.containers.watch(workload.id, "next-exit")
        await d.engine.containers.start(workload.id)
        assert (await asyncio.wait_for(waiting, 10)).code == 7
        after = d.engine.containers.get(workload.id)
        assert (after.status, after.exit_code, after.pid, after.id_base) == (Status.EXITED, 7, 0, 0)
        assert after.created <= after.started <= after.finished
        assert sorted((await d.log(workload.id)).split()) == [b"err", b"out"]
        await d.engine.containers.remove(workload.id, force=False, volumes=False)
        with pytest.raises(NotFound):
            d.engine.containers.get(workload.id)

    play(scenario)


def test_auto_remove_tells_who_waits(play: Play) -> None:
    async def scenario(d: Driver) -> None:
        workload = await d.create("sh", "-c", "exit 3", host=HostConfig(network_mode="none", auto_remove=True))
        waiting = d.engine.containers.watch(workload.id, "removed")
        await d.engine.containers.start(workload.id)
        assert (await asyncio.wait_for(waiting, 10)).code == 3
        assert d.engine.containers.list(all_=True, limit=0, filters={}) == []

    play(scenario)


@pytest.mark.parametrize(("command", "code", "errno"), [(["/no/such"], 127, 2), (["/etc"], 126, 13), (["no-such-program"], 127, 2)])
def test_a_program_that_can_not_be_run(play: Play, command: list[str], code: int, errno: int) -> None:
    async def scenario(d: Driver) -> None:
        workload = await d.create(*command)
        with pytest.raises(Invalid) as caught:
            await d.engine.containers.start(workload.id)
        assert (caught.value.stage, caught.value.errno) == ("exec", errno)
        after = d.engine.containers.get(workload.id)
        assert (after.status, after.exit_code) == (Status.CREATED, code)
        assert after.error

    play(scenario)


def test_a_failed_start_with_auto_remove_leaves_nothing(play: Play) -> None:
    async def scenario(d: Driver) -> None:
        workload = await d.create("/no/such", host=HostConfig(network_mode="bridge", auto_remove=True))
        removed = d.engine.containers.watch(workload.id, "removed")
        with pytest.raises(Invalid):
            await d.engine.containers.start(workload.id)
        await asyncio.wait_for(removed, 10)

    play(scenario)


def test_stop_is_gentle_then_not(play: Play) -> None:
    async def scenario(d: Driver) -> None:
        polite = await d.run("sh", "-c", "trap 'exit 5' TERM; while :; do sleep 0.02; done")
        deaf = await d.run("sh", "-c", "trap '' TERM; while :; do sleep 0.02; done")
        await asyncio.sleep(0.1)
        begin = time.monotonic()
        await d.engine.containers.stop(polite.id, 10, "")
        assert time.monotonic() - begin < 3
        assert d.engine.containers.get(polite.id).exit_code == 5
        await d.engine.containers.stop(deaf.id, 1, "")
        assert d.engine.containers.get(deaf.id).exit_code == 137
        with pytest.raises(Unchanged):
            await d.engine.containers.stop(polite.id, None, "")

    play(scenario)


def test_start_of_what_runs_is_unchanged_and_restart_starts_anew(play: Play) -> None:
    async def scenario(d: Driver) -> None:
        first = await d.run("sleep", "100")
        with pytest.raises(Unchanged):
            await d.engine.containers.start(first.id)
        await d.engine.containers.restart(first.id, 0, "")
        second = d.engine.containers.get(first.id)
        assert second.status is Status.RUNNING
        assert second.pid != first.pid
        assert second.started > first.started

    play(scenario)


def test_pause_holds_and_kill_goes_through(play: Play) -> None:
    async def scenario(d: Driver) -> None:
        workload = await d.run("sleep", "100")
        await d.engine.containers.pause(workload.id)
        assert d.engine.containers.get(workload.id).status is Status.PAUSED
        with pytest.raises(Conflict):
            await d.engine.containers.pause(workload.id)
        with pytest.raises(Conflict):
            await d.engine.containers.start(workload.id)
        with pytest.raises(Conflict):
            await d.engine.execs.create(workload.id, ExecRequest(cmd=["true"]))
        await d.engine.containers.unpause(workload.id)
        assert d.engine.containers.get(workload.id).status is Status.RUNNING
        await d.engine.containers.pause(workload.id)
        await d.engine.containers.kill(workload.id, "KILL")
        assert d.engine.containers.get(workload.id).exit_code == 137
        with pytest.raises(Conflict):
            await d.engine.containers.kill(workload.id, "TERM")

    play(scenario)


def test_names(play: Play) -> None:
    async def scenario(d: Driver) -> None:
        one = await d.create("true", name="one")
        with pytest.raises(Conflict, match="already in use"):
            await d.create("true", name="one")
        with pytest.raises(Invalid):
            await d.create("true", name="no spaces")
        await d.engine.containers.rename("one", "two")
        assert d.engine.containers.get("/two").id == one.id
        assert d.engine.containers.get(one.id[:10]).name == "two"
        await d.create("true", name="one")
        with pytest.raises(Conflict):
            await d.engine.containers.rename("one", "two")

    play(scenario)


def test_remove_wants_force_for_what_runs(play: Play) -> None:
    async def scenario(d: Driver) -> None:
        workload = await d.run("sleep", "100")
        with pytest.raises(Conflict, match="is running"):
            await d.engine.containers.remove(workload.id, force=False, volumes=False)
        await d.engine.containers.remove(workload.id, force=True, volumes=False)
        with pytest.raises(NotFound):
            await d.engine.containers.start(workload.id)

    play(scenario)


def test_exec_runs_and_tells_its_code(play: Play) -> None:
    async def scenario(d: Driver) -> None:
        workload = await d.run("sleep", "100")
        session = await d.engine.execs.create(workload.id, ExecRequest(cmd=["sh", "-c", "exit 9"]))
        died = asyncio.ensure_future(_event(d, "exec_die"))
        await asyncio.sleep(0)
        await d.engine.execs.start(session.id, None, None, tty=False, console_size=None)
        event = await asyncio.wait_for(died, 10)
        assert event.attributes["exitCode"] == "9"
        assert d.engine.execs.get(session.id).exit_code == 9
        missing = await d.engine.execs.create(workload.id, ExecRequest(cmd=["/no/such"]))
        with pytest.raises(Invalid):
            await d.engine.execs.start(missing.id, None, None, tty=False, console_size=None)
        assert d.engine.execs.get(missing.id).exit_code == 127

    play(scenario)


async def _event(d: Driver, action: str) -> Event:
    async for event in d.engine.events.subscribe(0, 0, {"event": [action]}):
        return event
    raise AssertionError("no event")


def test_events_are_dockers_in_order(play: Play) -> None:
    async def scenario(d: Driver) -> None:
        begin = time.time_ns()
        workload = await d.create("true", host=HostConfig(network_mode="bridge"))
        await d.engine.containers.start(workload.id)
        await d.wait(workload.id)
        await d.engine.containers.remove(workload.id, force=False, volumes=False)
        events = [e async for e in d.engine.events.subscribe(begin, time.time_ns(), {})]
        assert [(e.type, e.action) for e in events] == [
            ("container", "create"), ("network", "connect"), ("container", "start"), ("container", "die"),
            ("network", "disconnect"), ("container", "destroy"),
        ]  # fmt: skip
        assert events[3].attributes["exitCode"] == "0"
        assert events[3].attributes["image"] == "busybox"

    play(scenario)


def test_fifty_starts_at_once(play: Play) -> None:
    async def scenario(d: Driver) -> None:
        made = [await d.create("sleep", "100") for _ in range(50)]
        await asyncio.gather(*(d.engine.containers.start(w.id) for w in made))
        running = d.engine.containers.list(all_=False, limit=0, filters={})
        assert len(running) == 50
        assert len({w.id_base for w in running}) == 50
        await asyncio.gather(*(d.engine.containers.remove(w.id, force=True, volumes=False) for w in running))

    play(scenario)


def test_a_keeper_killed_before_it_has_answered_runs_nothing_twice(
    play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "runs")
    runs = os.open(tmp_path / "runs", os.O_RDWR)
    start = Keeper.start

    async def start_and_be_killed(self: Keeper, clients: Sequence[tuple[Connection, Client]]) -> Running:
        running = await start(self, clients)
        assert await asyncio.to_thread(os.read, runs, 100) == b"ran\n"
        os.kill(parent_of(running.pid), signal.SIGKILL)
        raise Unavailable("the keeper is gone")

    async def scenario(d: Driver) -> None:
        host = HostConfig(network_mode="none", binds=[f"{tmp_path}:/seen"])
        made = await d.create("sh", "-c", "echo ran >> /seen/runs; exec sleep 100", host=host)
        with monkeypatch.context() as patched:
            patched.setattr(Keeper, "start", start_and_be_killed)
            with pytest.raises(Unavailable, match="was killed while its program started"):
                await d.engine.containers.start(made.id)
        assert d.engine.containers.get(made.id).status is Status.CREATED
        assert not select.select([runs], [], [], 0)[0]
        await d.engine.containers.start(made.id)
        assert await asyncio.to_thread(os.read, runs, 100) == b"ran\n"

    play(scenario)
    os.close(runs)


def test_restart_policies(play: Play) -> None:
    async def scenario(d: Driver) -> None:
        policy = HostConfig(network_mode="none", restart_policy=RestartPolicy("on-failure", 2))
        failing = await d.run("sh", "-c", "exit 1", host=policy)
        for _ in range(3):  # as in Docker, each run's end is one
            assert await d.wait(failing.id) == 1
        assert d.engine.containers.get(failing.id).restart_count == 2
        always = await d.run("sleep", "0.05", host=HostConfig(network_mode="none", restart_policy=RestartPolicy("always")))
        await asyncio.wait_for(d.engine.containers.watch(always.id, "next-exit"), 10)
        await asyncio.wait_for(d.engine.containers.watch(always.id, "next-exit"), 10)
        assert d.engine.containers.get(always.id).restart_count >= 1
        await d.engine.containers.stop(always.id, 0, "")
        assert await d.wait(always.id) is not None
        assert not d.engine.containers.get(always.id).status.is_up

    play(scenario)


def test_volumes_of_the_image_and_flags(play: Play, tmp_path: object) -> None:
    async def scenario(d: Driver) -> None:
        config = Config(image="busybox", cmd=["sh", "-c", "echo x > /data/f; echo y > /named/f"], volumes={"/data": {}})
        host = HostConfig(network_mode="none", binds=["keep:/named"])
        workload = await d.create(config=config, host=host)
        assert [(m.type, m.destination) for m in workload.mounts] == [("volume", "/data"), ("volume", "/named")]
        await d.engine.containers.start(workload.id)
        assert await d.wait(workload.id) == 0
        names = [v["Name"] for v in await d.engine.volumes.list({})]
        assert sorted(names) == sorted(m.name for m in workload.mounts)
        await d.engine.containers.remove(workload.id, force=False, volumes=True)
        assert [v["Name"] for v in await d.engine.volumes.list({})] == ["keep"]
        reader = await d.run("cat", "/named/f", host=host)
        await d.wait(reader.id)
        assert await d.log(reader.id) == b"y\n"
        with pytest.raises(Conflict):
            await d.engine.volumes.remove("keep", force=False)
        await d.engine.containers.remove(reader.id, force=True, volumes=False)
        await d.engine.volumes.remove("keep", force=False)

    play(scenario)


def test_followed_logs_end_with_the_workload(play: Play) -> None:
    async def scenario(d: Driver) -> None:
        workload = await d.run("sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.05; done")
        assert await asyncio.wait_for(d.log(workload.id, follow=True), 10) == b"1\n2\n3\n"

    play(scenario)


@pytest.mark.parametrize(
    ("config", "host", "problem"),
    [
        (Config(image="busybox", cmd=["true"]), HostConfig(memory=1024), "6MB"),
        (Config(image="busybox", cmd=["true"]), HostConfig(nano_cpus=10**15), "CPUs"),
        (Config(image="busybox", cmd=["true"]), HostConfig(cap_add=["NOT_A_CAP"]), "NOT_A_CAP"),
        (Config(image="busybox", cmd=["true"]), HostConfig(binds=["/a:b"]), "absolute"),
        (Config(image="busybox", cmd=["true"]), HostConfig(network_mode="nowhere"), "nowhere"),
        (Config(image="busybox", cmd=["true"]), HostConfig(auto_remove=True, restart_policy=RestartPolicy("always")), "restart"),
        (Config(image="busybox", cmd=["true"]), HostConfig(runtime="other"), "other"),
        (Config(image="nothing-here", cmd=["true"]), HostConfig(), "nothing-here"),
        (Config(image="busybox", cmd=["true"], working_dir="x"), HostConfig(), "absolute"),
        (Config(image="busybox", cmd=["true"], stop_signal="SIGWHAT"), HostConfig(), "SIGWHAT"),
    ],
)
def test_impossible_flags_make_nothing(play: Play, config: Config, host: HostConfig, problem: str) -> None:
    async def scenario(d: Driver) -> None:
        with pytest.raises(BothyError, match=problem):
            await d.engine.containers.create("", config, host, NetworkingConfig())
        assert d.engine.containers.list(all_=True, limit=0, filters={}) == []

    play(scenario)
