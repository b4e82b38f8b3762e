"""Attached clients: input and its end, detach keys, several at once, slow ones."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from bothy.keeper import sessions
from bothy.keeper.detach import Scanner, parse
from tests.support.engine import await_
from tests.support.keepers import Harness


def test_input_and_half_close(harness: Harness) -> None:
    daemon = harness.keeper("sh", "-c", "cat; echo end", stdin=True, stdin_once=True)
    peer = harness.start(daemon, stdin=True, initial="fir")
    peer.send(b"st\nsecond")
    peer.half_close()
    assert peer.rest() == b"first\nsecondend\n"
    assert daemon.event("exit")["code"] == 0


def test_client_that_sends_and_hangs_up_is_read_to_the_end(harness: Harness, tmp_path: Path) -> None:
    daemon = harness.keeper("sh", "-c", f"sleep 0.1; wc -c > {tmp_path}/count", stdin=True, stdin_once=True)
    peer = harness.start(daemon, stdin=True)
    peer.send(b"x" * 150_000)
    peer.close()
    assert daemon.event("exit")["code"] == 0
    assert int((tmp_path / "count").read_text()) == 150_000


def test_input_without_once_outlives_its_client(harness: Harness) -> None:
    daemon = harness.keeper("sh", "-c", "read a; read b; echo $a $b", stdin=True)
    first = harness.start(daemon, stdin=True)
    first.send(b"one\n")
    first.half_close()
    assert first.rest() == b""
    second = harness.attach(daemon, stdin=True)
    second.send(b"two\n")
    assert second.rest() == b"one two\n"


def test_output_only_client_may_close_its_input(harness: Harness) -> None:
    daemon = harness.keeper("sh", "-c", "read a; echo $a", stdin=True, stdin_once=True)
    typist = harness.start(daemon, stdin=True)
    watcher = harness.attach(daemon)
    watcher.half_close()
    assert daemon.request("status")["pid"]
    typist.send(b"word\n")
    assert watcher.rest() == b"word\n"
    assert typist.rest() == b"word\n"


def test_program_without_stdin_reads_nothing(harness: Harness) -> None:
    daemon = harness.keeper("sh", "-c", "cat; sleep 0.3; echo end")
    peer = harness.start(daemon, stdin=True)
    peer.send(b"lost\n")
    assert peer.rest() == b"end\n"


def test_program_that_closed_its_stdin_does_not_stop_the_client(harness: Harness) -> None:
    daemon = harness.keeper("sh", "-c", "exec <&-; sleep 0.2; echo end", stdin=True, stdin_once=True)
    peer = harness.start(daemon, stdin=True)
    peer.send(b"x" * 400_000)
    peer.half_close()
    assert peer.rest() == b"end\n"


def test_every_client_gets_every_byte(harness: Harness) -> None:
    daemon = harness.keeper("sh", "-c", "read go; seq 100000", stdin=True)
    peers = [harness.start(daemon, stdin=True), harness.attach(daemon), harness.attach(daemon, framing="mux")]
    peers[0].send(b"\n")
    expected = b"".join(b"%d\n" % n for n in range(1, 100001))
    # Read in turn, in pieces of different sizes: each is slower than another at some time.
    data = [b"", b"", b""]
    ended: set[int] = set()
    while len(ended) < 3:
        for index, peer in enumerate(peers):
            if index not in ended:
                more = peer.sock.recv(4096 << index)
                data[index] += more
                if not more:
                    ended.add(index)
    assert data[0] == expected
    assert data[1] == expected
    assert demux(data[2])[1] == expected


def test_slow_client_makes_the_program_wait(harness: Harness, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    daemon = harness.keeper("sh", "-c", f"head -c 8000000 /dev/zero; touch {mark}", driver="none")
    before = memory(harness.pid)
    peer = harness.start(daemon)
    await_(lambda: at_rest(harness.pid, depth=2), "the program to wait")
    assert not mark.exists()
    assert memory(harness.pid) < before + 6_000  # not the 8 MB that it would write
    assert peer.rest() == b"\0" * 8_000_000
    assert daemon.event("exit")["code"] == 0


def test_client_that_dies_lets_the_program_go_on(harness: Harness) -> None:
    daemon = harness.keeper("sh", "-c", "head -c 8000000 /dev/zero; exit 3", driver="none")
    peer = harness.start(daemon)
    peer.sock.recv(1000)
    peer.close()
    assert daemon.event("exit")["code"] == 3


def test_onlooker_that_reads_nothing_is_closed(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "STALL", 0.2)
    daemon = harness.keeper("sh", "-c", "read go; head -c 8000000 /dev/zero; exit 3", stdin=True, driver="none")
    owner = harness.start(daemon, stdin=True)
    onlooker = harness.attach(daemon)
    owner.send(b"\n")
    assert len(owner.rest()) == 8_000_000
    assert daemon.event("exit")["code"] == 3
    assert len(onlooker.rest()) < 1_500_000


def test_end_is_told_though_a_client_is_slow(harness: Harness) -> None:
    daemon = harness.keeper("sh", "-c", "head -c 300000 /dev/zero; echo -n last")
    peer = harness.start(daemon)
    assert daemon.event("exit")["code"] == 0
    assert daemon.event("closed")
    assert daemon.read() is None
    assert peer.rest() == b"\0" * 300_000 + b"last"
    assert harness.wait() == 0


def test_terminal(harness: Harness) -> None:
    daemon = harness.keeper("sh", "-c", "stty -echo; echo ready; read x; stty size; echo got $x", tty=True, stdin=True)
    peer = harness.start(daemon, stdin=True)
    peer.until(b"ready\r\n")
    assert daemon.request("resize", height=33, width=101) == {}
    peer.send(b"hi\r")
    assert peer.rest() == b"ready\r\n33 101\r\ngot hi\r\n"


def test_exec_with_a_terminal(harness: Harness) -> None:
    daemon = harness.keeper("sleep", "60")
    harness.start(daemon)
    peer = harness.exec(daemon, "t", "sh", "-c", "stty -echo; echo ready; read x; stty size", tty=True, stdin=True)
    peer.until(b"ready\r\n")
    assert daemon.request("resize", exec="t", height=20, width=30) == {}
    peer.send(b"\r")
    assert peer.rest() == b"ready\r\n20 30\r\n"
    assert daemon.event("exec-exit") == {"event": "exec-exit", "exec": "t", "code": 0}


def test_detach_keys_end_the_client_and_not_the_program(harness: Harness) -> None:
    daemon = harness.keeper("sh", "-c", "stty -echo; echo ready; read x; echo got $x", tty=True, stdin=True)
    peer = harness.start(daemon, stdin=True)
    peer.until(b"ready\r\n")
    peer.send(b"a\x10b\x10")
    peer.send(b"\x11ignored")
    assert peer.rest() == b"ready\r\n"
    assert daemon.event("detach") == {"event": "detach"}
    again = harness.attach(daemon, stdin=True)
    again.send(b"c\n")
    assert again.rest() == b"got a\x10bc\r\n"


def test_bad_detach_keys_are_refused(harness: Harness) -> None:
    daemon = harness.keeper("sleep", "60", tty=True)
    harness.start(daemon)
    peer, fd, data = harness.client(detach_keys="ctrl-nonsense")
    with open(fd, "rb", buffering=0):
        assert "unknown key" in daemon.request("attach", (fd,), client=data)["error"]["message"]
    assert peer.rest() == b""


def test_keys() -> None:
    assert parse("ctrl-p,ctrl-q") == b"\x10\x11"
    assert parse("ctrl-@,ctrl-[,x") == b"\0\x1bx"
    assert parse("") == b""
    for bad in ("ctrl-", "ctrl-1", "xy", ",", "ctrl-ä"):
        with pytest.raises(ValueError, match="unknown key"):
            parse(bad)


@pytest.mark.parametrize(
    ("pieces", "passed", "left"),
    [
        ([b"abc"], b"abc", False),
        ([b"a\x10\x11b"], b"a", True),
        ([b"a\x10", b"\x11"], b"a", True),
        ([b"\x10\x10\x11"], b"\x10", True),
        ([b"\x10", b"x", b"\x11"], b"\x10x\x11", False),
    ],
)
def test_scanner(pieces: list[bytes], passed: bytes, left: bool) -> None:
    scanner = Scanner(parse("ctrl-p,ctrl-q"))
    results = [scanner.scan(piece) for piece in pieces]
    assert b"".join(data for data, _ in results) == passed
    assert results[-1][1] is left


def demux(data: bytes) -> dict[int, bytes]:
    streams = {1: b"", 2: b""}
    while data:
        which, length = struct.unpack(">BxxxL", data[:8])
        streams[which] += data[8 : 8 + length]
        data = data[8 + length :]
    return streams


def at_rest(pid: int, *, depth: int) -> bool:
    """Whether a process has so many generations of children, and all of them sleep and write nothing meanwhile."""
    family = [pid]
    for _ in range(depth):
        children = Path(f"/proc/{family[-1]}/task/{family[-1]}/children").read_text().split()
        if not children:
            return False
        family.append(int(children[0]))

    def state() -> list[tuple[str, str]]:
        return [
            (Path(f"/proc/{p}/stat").read_text().rpartition(")")[2].split()[0], Path(f"/proc/{p}/io").read_text()) for p in family
        ]

    before = state()
    return all(word == "S" for word, _ in before) and state() == before


def memory(pid: int) -> int:
    """Resident kilobytes."""
    return int(next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")).split()[1])
