"""The event loop: timers, descriptors that are forgotten in time, children, signals."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from bothy.keeper.loop import IN, Loop, nothing


@pytest.fixture
def loop() -> Iterator[Loop]:
    before = {number: signal.getsignal(number) for number in (signal.SIGCHLD, signal.SIGUSR1)}
    loop = Loop()
    yield loop
    loop.close()
    for number, handler in before.items():
        signal.signal(number, handler)


def test_timers_come_in_order_and_can_be_cancelled(loop: Loop) -> None:
    calls: list[str] = []
    loop.later(0.02, lambda: calls.append("second"))
    loop.later(0, lambda: calls.append("first"))
    loop.later(0.01, lambda: calls.append("never")).cancel()
    loop.later(0.03, loop.stop)
    loop.run()
    assert calls == ["first", "second"]


def test_forgotten_descriptor_is_not_told_in_the_same_turn(loop: Loop) -> None:
    calls: list[int] = []
    pairs = [os.pipe(), os.pipe()]
    for (read, write), (other, _) in zip(pairs, reversed(pairs), strict=True):
        os.write(write, b"x")

        def readable(_events: int, read: int = read, other: int = other) -> None:
            calls.append(read)
            loop.forget(read)
            loop.forget(other)

        loop.watch(read, IN, readable)
    loop.turn()
    assert len(calls) == 1
    for pair in pairs:
        for fd in pair:
            os.close(fd)


def fork(code: int) -> int:
    pid = os.fork()
    if not pid:
        os._exit(code)
    return pid


def test_children_and_orphans_are_reaped(loop: Loop) -> None:
    codes: list[int] = []
    orphan = fork(9)
    os.waitid(os.P_PID, orphan, os.WEXITED | os.WNOWAIT)
    loop.child(fork(3), lambda status: (codes.append(os.WEXITSTATUS(status)), loop.stop())[0])
    loop.run()
    assert codes == [3]
    with pytest.raises(ChildProcessError):
        os.waitid(os.P_PID, orphan, os.WEXITED)


def test_strangers_are_left_alone_while_there_may_be_one(loop: Loop) -> None:
    loop.reap()
    loop.strangers += 1
    stranger = fork(7)
    loop.child(fork(0), lambda _status: loop.stop())
    loop.run()
    assert os.waitid(os.P_PID, stranger, os.WEXITED | os.WNOWAIT) is not None
    codes: list[int] = []
    loop.strangers -= 1
    loop.child(stranger, lambda status: (codes.append(os.WEXITSTATUS(status)), loop.stop())[0])
    loop.collect_later()
    loop.run()
    assert codes == [7]


def test_signals_are_told(loop: Loop) -> None:
    signal.signal(signal.SIGUSR1, nothing)
    loop.reap()
    told: list[bool] = []
    loop.on_signal(signal.SIGUSR1, lambda: (told.append(True), loop.stop())[0])
    os.kill(os.getpid(), signal.SIGUSR1)
    loop.run()
    assert told == [True]
