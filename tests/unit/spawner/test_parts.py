"""The pool's choices, the back-off of the revival, and that keepers find warm what they need."""

from __future__ import annotations

import itertools
import os
import time

import pytest

from bothy.containers.sandbox import Sandbox
from bothy.errors import StageError
from bothy.spawner import command
from bothy.spawner.pool import Pool
from bothy.spawner.revival import ATTEMPTS, LONGEST, STEADY, Revival
from bothy.spawner.warm import warm


class Maker:
    """Makes sandboxes without namespaces; `broken` ones can not be made."""

    def __init__(self, *broken: int) -> None:
        self.made: list[int] = []
        self.broken = broken

    def __call__(self, id_base: int) -> Sandbox:
        if id_base in self.broken:
            raise StageError("sandbox", "no more namespaces")
        self.made.append(id_base)
        return Sandbox(id_base, -1, -1, -1, -1)


def fill(pool: Pool) -> None:
    while pool.short:
        pool.make_one()


def test_pool_makes_as_many_as_it_should_in_order() -> None:
    make = Maker()
    pool = Pool(make)
    assert not pool.short
    pool.order(2, [10, 20, 30])
    fill(pool)
    assert make.made == [10, 20]
    assert pool.take(10) == Sandbox(10, -1, -1, -1, -1)
    assert pool.take(10) is None
    fill(pool)
    assert make.made == [10, 20, 30]


def test_pool_gives_up_what_is_not_wanted_any_more() -> None:
    make = Maker()
    pool = Pool(make)
    pool.order(2, [10, 20])
    fill(pool)
    pool.order(2, [20, 30])
    fill(pool)
    assert pool.take(10) is None
    assert pool.take(20) is not None
    assert make.made == [10, 20, 30]
    pool.close()
    assert not pool.short


def test_pool_does_not_try_again_and_again(capfd: pytest.CaptureFixture[str]) -> None:
    pool = Pool(Maker(10))
    pool.order(3, [10, 20, 30])
    fill(pool)
    assert pool.take(20) is None
    assert "no more namespaces" in capfd.readouterr().err


def test_sandbox_that_was_taken_before_it_was_made_is_not_made() -> None:
    make = Maker()
    pool = Pool(make)
    pool.order(1, [10])
    assert pool.take(10) is None
    fill(pool)
    assert make.made == []


def test_revival_waits_longer_each_time_and_gives_up() -> None:
    begun = time.monotonic()
    delays = [Revival(["bothyd"], 0, attempts, begun).delay for attempts in range(ATTEMPTS)]
    assert delays[0] == 0
    assert all(one is not None and other is not None and one <= other <= LONGEST for one, other in itertools.pairwise(delays))
    assert Revival(["bothyd"], 0, ATTEMPTS, begun).delay is None
    assert Revival(["bothyd"], 0, ATTEMPTS, begun - STEADY - 1).delay == 0


def test_revival_is_not_for_us_under_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INVOCATION_ID", "x")
    read, write = os.pipe()
    assert Revival.of_environ(["bothyd"], write) is None
    assert os.read(read, 1) == b""
    os.close(read)


def test_revival_counts_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INVOCATION_ID", raising=False)
    monkeypatch.setenv("BOTHY_REVIVED", "3")
    revival = Revival.of_environ(["bothyd"], -1)
    assert revival is not None
    assert revival.count == 3


def test_plans_are_read_as_they_are_written() -> None:
    warm()


def test_command_is_isolated() -> None:
    argv = command.argv(7, "/usr/bin/python3")
    assert argv[:3] == ["/usr/bin/python3", "-I", "-S"]
    assert argv[-2:] == ["--socket", "7"]
