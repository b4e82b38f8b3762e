from __future__ import annotations

import socket

import pytest

from bothy.machines import qmp
from bothy.machines.qmp import Answer, Event, Parser


def test_answers_and_events_are_told_apart_and_the_greeting_is_swallowed() -> None:
    said = b'{"QMP": {}}\r\n{"return": {"running": true}}\r\n{"event": "STOP", "timestamp": {}}\n{"error": {"class": "X", "desc": "no"}}\n'
    assert Parser().feed(said) == [Answer({"running": True}), Event("STOP", {}), Answer(None, "no")]


def test_a_line_may_come_in_pieces() -> None:
    parser = Parser()
    assert parser.feed(b'{"ret') == []
    assert parser.feed(b'urn": 1}\n{') == [Answer(1)]


@pytest.mark.parametrize("said", [b"hello\n", b"[1]\n", b"\xff\n", b"[" * 100_000 + b"\n", b"x" * (qmp.MAX_LINE + 1)])
def test_what_is_not_qmp_is_refused(said: bytes) -> None:
    with pytest.raises(qmp.QmpError):
        Parser().feed(said)


def test_odd_shapes_do_no_harm() -> None:
    assert Parser().feed(b'{"event": "X", "data": 7}\n{"error": 3}\n{"other": 1}\n') == [Event("X", {}), Answer(None, "3")]


def test_the_client_gives_results_raises_errors_and_keeps_events() -> None:
    ours, its = socket.socketpair()
    with ours, its:
        its.sendall(b'{"QMP": {}}\n{"return": {}}\n{"event": "STOP"}\n{"return": 5}\n{"error": {"desc": "bad"}}\n')
        client = qmp.Client(ours, timeout=1)
        assert client("query-five") == 5
        with pytest.raises(qmp.QmpError, match="fail: bad"):
            client("fail", some_thing=1)
        assert client.event("STOP") == Event("STOP", {})
        assert its.recv(4096).splitlines()[-1] == b'{"execute": "fail", "arguments": {"some-thing": 1}}'
        with pytest.raises(TimeoutError):
            qmp.Client(ours, timeout=0.01)


def test_the_client_tells_that_qemu_is_gone() -> None:
    ours, its = socket.socketpair()
    with ours:
        its.sendall(b'{"return": {}}\n')
        client = qmp.Client(ours, timeout=1)
        its.close()
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            client("quit")
