"""The server as clients see it: datagrams and streams, forwarding, bounds, and garbage."""

from __future__ import annotations

import socket

import dns.message
import dns.rcode
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bothy.networks.dns import message, server, stream, upstream
from bothy.networks.dns.loop import IN
from tests.unit.networks.dns.conftest import NETWORK, House

WEB = {"endpoints": [{"network": "n", "addresses": ["127.0.0.2"], "names": ["web"]}]}


def asked(name: str, kind: str = "A", **options: object) -> bytes:
    return dns.message.make_query(name, kind, **options).to_wire()  # type: ignore[arg-type]


def reply_of(data: bytes, code: int = message.NOERROR) -> bytes:
    query = message.read(data)
    assert isinstance(query, message.Query)
    return message.answer(data, query, code, [] if code else [message.record(message.A, b"\xc0\0\2\7")])


def told(data: bytes) -> list[str] | int:
    answer = dns.message.from_wire(data)
    return [str(r) for rrset in answer.answer for r in rrset] if answer.rcode() == 0 else int(answer.rcode())


def framed(*queries: bytes) -> bytes:
    return b"".join(len(data).to_bytes(2, "big") + data for data in queries)


def exchange(house: House, data: bytes, source: str = "127.0.0.1") -> list[str] | int:
    with house.client(source=source) as client:
        client.send(data)
        answer = house.hear(client)
        assert answer[:2] == data[:2]
        return told(answer)


# -- datagrams


def test_a_name_is_answered_and_again_from_memory(house: House) -> None:
    house.zone.put("w", WEB)
    for _ in range(3):
        assert exchange(house, asked("web")) == ["127.0.0.2"]
    assert exchange(house, asked("web", use_edns=0)) == ["127.0.0.2"]
    assert not house.asked


def test_what_has_changed_is_read_before_each_answer(house: House) -> None:
    house.zone.put("w", WEB)
    assert exchange(house, asked("web")) == ["127.0.0.2"]
    before = house.refreshed
    assert exchange(house, asked("web")) == ["127.0.0.2"]
    assert house.refreshed == before + 1


def test_strangers_get_no_answer(house: House) -> None:
    house.address = house.serve({**NETWORK, "id": "other", "subnets": ["10.0.0.0/8"]})
    with house.client() as client, house.client(socket.SOCK_STREAM) as talker:
        client.send(asked("web"))
        talker.send(framed(asked("web")))
        assert house.hear(talker) == b""
        with pytest.raises(BlockingIOError):
            client.recv(512)


def test_a_network_is_dropped(house: House) -> None:
    with house.client(socket.SOCK_STREAM) as talker:
        house.until(lambda: len(house.server._streams) == 1)
        house.server.drop("n")
        assert house.hear(talker) == b""
    with house.client() as client:
        client.send(asked("web"))
        with pytest.raises(ConnectionRefusedError):
            client.recv(512)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.lists(st.binary(max_size=300), max_size=5))
def test_garbage_does_no_harm(house: House, junk: list[bytes]) -> None:
    house.zone.put("w", WEB)
    with house.client() as client, house.client(socket.SOCK_STREAM) as talker:
        for data in junk:
            client.send(data)
            talker.send(data)
        assert exchange(house, asked("web")) == ["127.0.0.2"]


# -- the world


def test_other_names_are_asked_for_in_the_world(house: House) -> None:
    house.world("127.0.0.9", reply_of)
    house.resolv.write_text("# a host\nnameserver 127.0.0.9\n")
    data = asked("example.com", use_edns=0, payload=4000, want_dnssec=True)
    assert exchange(house, data) == ["192.0.2.7"]
    assert [(at, sent[2:]) for at, sent in house.asked] == [("127.0.0.9", data[2:])]
    assert not house.upstream._asks
    assert not +house.upstream._of


def test_ids_and_ports_are_fresh_every_time(house: House) -> None:
    house.world("127.0.0.9", reply_of)
    house.resolv.write_text("nameserver 127.0.0.9\n")
    for _ in range(8):
        assert exchange(house, b"\0\1" + asked("example.com")[2:]) == ["192.0.2.7"]
    assert len({sent[:2] for _, sent in house.asked}) > 4


def test_the_hosts_file_is_read_again_when_it_has_changed(house: House) -> None:
    house.world("127.0.0.9", reply_of)
    assert exchange(house, asked("example.com")) == dns.rcode.SERVFAIL
    house.resolv.write_text("nameserver 127.0.0.9\n")
    assert exchange(house, asked("example.com")) == ["192.0.2.7"]
    house.resolv.unlink()
    assert exchange(house, asked("example.com")) == dns.rcode.SERVFAIL


def test_a_workload_may_have_servers_of_its_own(house: House) -> None:
    house.world("127.0.0.9", reply_of)
    house.zone.put("w", {**WEB, "servers": ["127.0.0.9"]})
    assert exchange(house, asked("example.com"), source="127.0.0.2") == ["192.0.2.7"]
    assert exchange(house, asked("example.com"), source="127.0.0.3") == dns.rcode.SERVFAIL


def test_an_internal_network_asks_nobody(house: House) -> None:
    house.world("127.0.0.9", reply_of)
    house.resolv.write_text("nameserver 127.0.0.9\n")
    house.address = house.serve({**NETWORK, "internal": True})
    assert exchange(house, asked("example.com")) == dns.rcode.NXDOMAIN
    assert not house.asked


@pytest.mark.usefixtures("hasty")
def test_the_next_server_is_asked_where_one_is_silent_or_not_there(house: House) -> None:
    house.world("127.0.0.8", lambda data: None)
    house.world("127.0.0.9", reply_of)
    house.resolv.write_text("nameserver nonsense\nnameserver 127.0.0.8\nnameserver 127.0.0.9\n")
    assert exchange(house, asked("example.com")) == ["192.0.2.7"]
    assert [at for at, _ in house.asked] == ["127.0.0.8", "127.0.0.9"]
    house.asked.clear()
    assert exchange(house, asked("example.com")) == ["192.0.2.7"]
    assert [at for at, _ in house.asked] == ["127.0.0.9"], "one that was silent comes last"


@pytest.mark.parametrize("code", [message.SERVFAIL, message.REFUSED])
def test_a_refusal_is_the_answer_only_if_nobody_has_a_better_one(house: House, code: int) -> None:
    house.world("127.0.0.8", lambda data: reply_of(data, code))
    house.resolv.write_text("nameserver 127.0.0.8\n")
    assert exchange(house, asked("example.com")) == code
    house.world("127.0.0.9", lambda data: reply_of(data, message.NXDOMAIN))
    house.resolv.write_text("nameserver 127.0.0.8\nnameserver 127.0.0.9\n")
    assert exchange(house, asked("example.com")) == message.NXDOMAIN


@pytest.mark.usefixtures("hasty")
def test_all_fail(house: House) -> None:
    house.world("127.0.0.8", lambda data: None)
    house.resolv.write_text("nameserver 127.0.0.8\nnameserver 127.0.0.7\n")
    assert exchange(house, asked("example.com")) == dns.rcode.SERVFAIL
    assert not house.upstream._asks


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(
    "wrong",
    [
        lambda data: bytes((data[0] ^ 1,)) + reply_of(data)[1:],
        lambda data: data,
        lambda data: b"",
        lambda data: data[:2] + reply_of(asked("other.example"))[2:],
    ],
)
def test_what_is_no_answer_to_the_question_is_passed_over(house: House, wrong: object) -> None:
    house.world("127.0.0.8", wrong)  # type: ignore[arg-type]
    house.resolv.write_text("nameserver 127.0.0.8\n")
    assert exchange(house, asked("example.com")) == dns.rcode.SERVFAIL


def test_an_answer_that_was_cut_is_passed_on_as_it_is(house: House) -> None:
    def cut(data: bytes) -> bytes:
        reply = bytearray(reply_of(data))
        reply[2] |= 2
        return bytes(reply)

    house.world("127.0.0.9", cut)
    house.resolv.write_text("nameserver 127.0.0.9\n")
    data = asked("example.com")
    with house.client() as client:
        client.send(data)
        assert house.hear(client)[2] & 2


def test_a_question_asked_again_is_asked_once(house: House) -> None:
    house.world("127.0.0.9", lambda data: None)
    house.resolv.write_text("nameserver 127.0.0.9\n")
    data = asked("example.com")
    with house.client() as client:
        for _ in range(5):
            client.send(data)
        house.until(lambda: house.refreshed == 5)
    assert len(house.upstream._asks) == 1


def test_one_that_asks_without_end_gets_failures_and_the_others_answers(house: House) -> None:
    answers: list[bool] = []
    house.world("127.0.0.9", lambda data: reply_of(data) if answers else None)
    house.resolv.write_text("nameserver 127.0.0.9\n")
    most = upstream.MAX_OF_ONE[1]
    with house.client(source="127.0.0.2") as client:
        for number in range(most):
            client.send(number.to_bytes(2, "big") + asked("example.com")[2:])
            house.until(lambda: house.refreshed > number)  # noqa: B023
        client.send(b"\xff\xff" + asked("example.com")[2:])
        assert told(house.hear(client)) == dns.rcode.SERVFAIL
    assert len(house.upstream._asks) == most
    answers.append(True)
    assert exchange(house, asked("example.com"), source="127.0.0.3") == ["192.0.2.7"]


# -- streams


def read(house: House, talker: socket.socket) -> list[str] | int:
    data = b""
    while len(data) < 2 or len(data) < 2 + int.from_bytes(data[:2], "big"):
        more = house.hear(talker)
        assert more
        data += more
    return told(data[2:])


def test_a_stream_is_asked_many_things(house: House) -> None:
    house.zone.put("w", WEB)
    with house.client(socket.SOCK_STREAM) as talker:
        for _ in range(3):
            talker.send(framed(asked("web")))
            assert read(house, talker) == ["127.0.0.2"]
        half = framed(asked("web"))
        talker.send(half[:1])
        house.until(lambda: True)
        talker.send(half[1:20])
        house.until(lambda: True)
        talker.send(half[20:])
        talker.shutdown(socket.SHUT_WR)
        assert read(house, talker) == ["127.0.0.2"]
        assert house.hear(talker) == b""
    assert not house.server._streams
    assert not +house.server._counts


def test_what_does_not_fit_a_datagram_fits_a_stream(house: House) -> None:
    for number in range(60):
        house.zone.put(f"w{number}", {"endpoints": [{"network": "n", "addresses": [f"127.0.1.{number}"], "names": ["all"]}]})
    with house.client() as client:
        client.send(asked("all"))
        answer = house.hear(client)
    assert len(answer) <= 512
    assert answer[2] & 2
    with house.client(socket.SOCK_STREAM) as talker:
        talker.send(framed(asked("all")))
        found = read(house, talker)
        assert isinstance(found, list)
        assert len(found) == 60


def test_a_stream_asks_the_world_by_a_stream(house: House) -> None:
    listener = house.bound(socket.SOCK_STREAM, ("127.0.0.9", house.port))
    listener.listen()
    listener.setblocking(False)
    house.resolv.write_text("nameserver 127.0.0.8\nnameserver 127.0.0.9\n")

    def knock(_: int) -> None:
        sock, _peer = listener.accept()
        house.made.append(sock)
        house.loop.watch(sock.fileno(), IN, lambda _: hear(sock))

    def hear(sock: socket.socket) -> None:
        house.loop.unwatch(sock.fileno())
        sock.send(framed(reply_of(sock.recv(4096)[2:])))

    house.loop.watch(listener.fileno(), IN, knock)
    with house.client(socket.SOCK_STREAM) as talker:
        talker.send(framed(asked("example.com")))
        assert read(house, talker) == ["192.0.2.7"]
    assert not house.upstream._asks


def test_nobody_has_all_the_streams(house: House) -> None:
    talkers = [house.client(socket.SOCK_STREAM, "127.0.0.2") for _ in range(server.MAX_STREAMS_OF_ONE)]
    house.until(lambda: len(house.server._streams) == len(talkers))
    assert house.hear(house.client(socket.SOCK_STREAM, "127.0.0.2")) == b""
    other = house.client(socket.SOCK_STREAM, "127.0.0.3")
    house.until(lambda: len(house.server._streams) == len(talkers) + 1)
    for talker in [*talkers, other]:
        talker.close()
    house.until(lambda: not house.server._streams)
    assert not +house.server._counts


@pytest.mark.usefixtures("hasty")
def test_a_stream_that_says_nothing_is_ended(house: House) -> None:
    with house.client(socket.SOCK_STREAM) as talker:
        talker.send(b"\0")
        assert house.hear(talker) == b""


@pytest.mark.parametrize("data", [(stream.MAX_QUERY + 1).to_bytes(2, "big"), framed(b"short"), framed(b"\0\0\x80" + bytes(9))])
def test_a_stream_of_nonsense_is_ended(house: House, data: bytes) -> None:
    with house.client(socket.SOCK_STREAM) as talker:
        talker.send(data)
        assert house.hear(talker) == b""
    assert not house.server._streams
