"""Messages with descriptors over SEQPACKET sockets."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from bothy.linux import channel


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = channel.pair()
    yield left, right
    left.close()
    right.close()


def test_messages_keep_their_bounds_and_order(ends: tuple[socket.socket, socket.socket]) -> None:
    left, right = ends
    for number in range(3):
        channel.send(left, {"n": number, "text": "ö\n"})
    assert [channel.receive(right) for _ in range(3)] == [({"n": n, "text": "ö\n"}, []) for n in range(3)]


def test_descriptors_arrive_closed_on_exec(ends: tuple[socket.socket, socket.socket]) -> None:
    left, right = ends
    read, write = os.pipe()
    channel.send(left, {}, [write, write])
    message, fds = channel.receive(right)
    assert message == {}
    assert [os.get_inheritable(fd) for fd in fds] == [False, False]
    os.write(fds[1], b"x")
    assert os.read(read, 1) == b"x"
    channel.close_all([*fds, read, write])


def test_large_message_fits_and_a_larger_one_is_refused(ends: tuple[socket.socket, socket.socket]) -> None:
    left, right = ends
    channel.send(left, {"x": "y" * 400_000})
    message, _ = channel.receive(right)
    assert message is not None
    assert len(message["x"]) == 400_000
    with pytest.raises(ValueError, match="bytes"):
        channel.send(left, {"x": "y" * channel.MAX_MESSAGE})


def test_end_of_stream(ends: tuple[socket.socket, socket.socket]) -> None:
    left, right = ends
    channel.send(left, {"last": True})
    left.close()
    assert channel.receive(right) == ({"last": True}, [])
    assert channel.receive(right) == (None, [])
    with pytest.raises(BrokenPipeError):
        channel.send(right, {})


def test_last_words_of_one_who_did_not_listen(ends: tuple[socket.socket, socket.socket]) -> None:
    left, right = ends
    channel.send(right, {"unread": True})
    channel.send(left, {"last": True})
    left.close()
    assert channel.receive(right) == ({"last": True}, [])


def test_nothing_there_would_block(ends: tuple[socket.socket, socket.socket]) -> None:
    left, right = ends
    right.setblocking(False)
    with pytest.raises(BlockingIOError):
        channel.receive(right)
    left.setblocking(False)
    with pytest.raises(BlockingIOError):
        all(channel.send(left, {"x": "y" * 10_000}) is None for _ in range(100_000))


@pytest.mark.parametrize("data", [b"not json", b"[1]", b"\xff", b"{}" + b" " * 2 * channel.MAX_MESSAGE])
def test_what_is_no_message_is_refused_and_its_descriptors_closed(ends: tuple[socket.socket, socket.socket], data: bytes) -> None:
    left, right = ends
    left.setsockopt(socket.SOL_SOCKET, 32, 4 * channel.MAX_MESSAGE)
    read, write = os.pipe()
    channel.send_bytes(left, data, [write])
    os.close(write)
    with pytest.raises(channel.ChannelError):
        channel.receive(right)
    assert os.read(read, 1) == b""
    os.close(read)


def test_listen_accept_connect_with_a_long_path(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    channel.listen(str(folder), "s").close()
    listener = channel.listen(str(folder), "s")
    assert (folder / "s").stat().st_mode & 0o777 == 0o600
    client = channel.connect(str(folder), "s")
    server = channel.accept(listener)
    channel.send(client, {"hello": 1})
    assert channel.receive(server)[0] == {"hello": 1}
    with pytest.raises(BlockingIOError):
        channel.accept(listener)
    for sock in (client, server, listener):
        sock.close()
    with pytest.raises(ConnectionRefusedError):
        channel.connect(str(folder), "s")
