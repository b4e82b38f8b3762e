from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from bothy.guest.port import Port
from bothy.guest.sessions import Session
from bothy.keeper.loop import Loop
from bothy.machines import wire
from bothy.machines.wire import Frame


class Line:
    """A port over a socket pair, and what came out at the other end."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.near, self.far = socket.socketpair()
        self.far.setblocking(False)
        self.decoder = wire.Decoder()
        self.heard: list[Frame] = []
        self.room = 0
        self.port = Port(self.loop, self.near.fileno(), self.heard.append, self._room)

    def _room(self) -> None:
        self.room += 1

    def said(self) -> list[Frame]:
        try:
            return self.decoder.feed(self.far.recv(1 << 20))
        except BlockingIOError:
            return []

    def close(self) -> None:
        self.loop.forget(self.near.fileno())
        self.loop.close()
        self.near.close()
        self.far.close()


class Program:
    """What a session has in place of a process."""

    def __init__(self, takes: int = 1 << 30) -> None:
        self.takes = takes
        self.written = b""
        self.closed = False
        self.held = False

    def write(self, data: bytes) -> int:
        taken = data[: self.takes]
        self.takes -= len(taken)
        self.written += taken
        return len(taken)

    def close_input(self) -> None:
        self.closed = True

    def hold(self, *, held: bool) -> None:
        self.held = held


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line()
    yield made
    made.close()


def session(line: Line, program: Program, exits: list[int]) -> Session:
    made = Session(line.port, 3, lambda _session, code: exits.append(code))
    made.process = program  # type: ignore[assignment]
    return made


def test_output_stops_at_the_window_and_goes_on_with_credit(line: Line) -> None:
    program, exits = Program(), list[int]()
    one = session(line, program, exits)
    one.feed(1, b"x" * (wire.WINDOW + 10))
    assert sum(len(frame.payload) for frame in line.said()) == wire.WINDOW
    assert program.held
    one.exited(4)
    assert exits == [], "not before the last byte"
    one.credit(1, 10)
    assert [frame.payload for frame in line.said()] == [b"x" * 10]
    assert exits == [4]


def test_the_two_outputs_have_windows_of_their_own(line: Line) -> None:
    one = session(line, Program(), [])
    one.feed(1, b"x" * wire.WINDOW)
    one.feed(2, b"err")
    assert line.said()[-1] == Frame(wire.DATA, wire.stream_of(3, 2), b"err")


def test_the_end_of_a_stream_is_told_after_its_bytes(line: Line) -> None:
    one = session(line, Program(), [])
    one.feed(1, b"last")
    one.eof(1)
    assert [frame.kind for frame in line.said()] == [wire.DATA, wire.END]


def test_input_that_the_program_does_not_take_waits_and_its_credit_too(line: Line) -> None:
    program = Program(takes=4)
    one = session(line, program, [])
    one.take(b"123456")
    one.end_input()
    assert [wire.credit_of(frame) for frame in line.said()] == [4]
    assert not program.closed
    program.takes = 100
    one.drained()
    assert program.written == b"123456"
    assert program.closed
    assert [wire.credit_of(frame) for frame in line.said()] == [2]


def test_a_crowded_port_holds_the_programs_back_and_tells_when_there_is_room(line: Line) -> None:
    line.port.send(wire.encode(wire.DATA, 1, bytes(wire.CHUNK)) * 64)
    assert line.port.crowded
    program = Program()
    one = session(line, program, [])
    one.feed(1, b"later")
    assert program.held
    heard: list[Frame] = []
    while line.port.crowded:
        heard += line.said()
        line.loop.turn()
    assert line.room == 1
    one.pump()
    assert not program.held
    for _ in range(100):
        heard += line.said()
        if heard[-1].payload == b"later":
            break
        line.loop.turn()
    assert heard[-1] == Frame(wire.DATA, wire.stream_of(3, 1), b"later")
    assert len(heard) == 65


def test_frames_come_in(line: Line) -> None:
    line.far.send(wire.encode_order({"op": "x"}) + wire.encode(wire.END, 12))
    line.loop.turn()
    assert [frame.kind for frame in line.heard] == [wire.MESSAGE, wire.END]
    assert wire.order_of(line.heard[0]) == {"op": "x"}


def test_nothing_is_left_open() -> None:
    before = os.listdir("/proc/self/fd")
    made = Line()
    made.close()
    assert os.listdir("/proc/self/fd") == before
