"""A machine that stands still: what its keeper tells the agent and QEMU, and in which order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from bothy.errors import StageError
from bothy.keeper import workload as wall
from bothy.keeper.loop import Loop
from bothy.keeper.stillness import Stillness


class Machine:
    """Writes down what it is told, and answers when the test says so."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.open: list[wall.Done] = []
        self.ended = False

    def ask(self, message: dict[str, Any], reply: wall.Done) -> None:
        self.said.append("freeze" if message["frozen"] else "thaw")
        self.open.append(reply)

    def order(self, name: str, done: wall.Done) -> None:
        if self.ended:
            raise StageError("machine", "the machine has ended")
        self.said.append(name)
        done({})

    def tell_time(self) -> None:
        self.said.append("time")


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


def test_pause_and_resume(loop: Loop) -> None:
    machine, done = Machine(), []
    still = Stillness(loop, machine)
    still.pause(done.append)
    assert (machine.said, done) == (["freeze"], [])
    machine.open.pop()({})
    assert (machine.said, done) == (["freeze", "stop"], [{}])
    still.resume(done.append)
    assert machine.said[2:] == ["cont", "time", "thaw"]


def test_visits_of_a_paused_machine(loop: Loop) -> None:
    machine, gone = Machine(), []
    still = Stillness(loop, machine)
    still.pause(lambda _: None)
    machine.open.pop()({})
    del machine.said[:]
    still.enter(gone.append)
    still.enter(gone.append)
    assert (machine.said, gone) == (["cont", "time"], [None, None])
    still.leave()
    assert machine.said == ["cont", "time"]
    still.leave()
    assert machine.said == ["cont", "time", "stop"]


def test_a_running_machine_is_left_alone(loop: Loop) -> None:
    machine, gone = Machine(), []
    still = Stillness(loop, machine)
    still.enter(gone.append)
    still.leave()
    assert (machine.said, gone) == ([], [None])


def test_a_guest_that_does_not_freeze(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bothy.keeper.stillness.PATIENCE", 0.0)
    machine, done, gone = Machine(), [], []
    still = Stillness(loop, machine)
    still.pause(done.append)
    loop.turn()
    assert (machine.said, done) == (["freeze", "stop"], [{}])
    machine.open.pop()({})  # too late
    assert len(done) == 1
    still.enter(gone.append)
    assert isinstance(gone[0], StageError)
    assert machine.said == ["freeze", "stop"]


def test_one_that_has_ended(loop: Loop) -> None:
    machine, done = Machine(), []
    still = Stillness(loop, machine)
    still.pause(done.append)
    machine.ended = True
    machine.open.pop()(StageError("machine", "the machine has ended"))
    assert isinstance(done[0], StageError)
    still.enter(done.append)
    still.leave()
    assert done[1] is None
