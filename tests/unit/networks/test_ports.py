"""Host ports: asked for, taken, refused. On the loopback's own addresses, so that nobody else's ports are touched."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from bothy.errors import Conflict, Invalid, Unsupported
from bothy.networks.model import PortRequest, Published
from bothy.networks.ports import Ports, host_ports

HERE = "127.83.1.1"


@pytest.fixture
def ports():
    service = Ports()
    yield service
    service.close()


def free() -> int:
    with socket.socket() as probe:
        probe.bind((HERE, 0))
        return int(probe.getsockname()[1])


def test_words_for_host_ports() -> None:
    assert list(host_ports("8080")) == [8080]
    assert list(host_ports("8000-8002")) == [8000, 8001, 8002]
    assert host_ports("") == host_ports("0") == range(0)
    for wrong in ("x", "8000-", "9-8", "70000", "-1", "1-2-3", "0-5", "\u0663"):
        with pytest.raises(Invalid):
            host_ports(wrong)


def test_a_port_that_is_taken_is_told_with_its_holder(ports: Ports) -> None:
    number = free()
    request = PortRequest(80, host_ip=HERE, host_port=str(number))
    assert ports.reserve("a" * 64, [request]) == [Published(80, "tcp", HERE, number)]
    with pytest.raises(Conflict, match=f"port {number}/tcp on {HERE} is already allocated by workload aaaaaaaaaaaa"):
        ports.reserve("b" * 64, [request])
    with pytest.raises(Conflict, match="workload aaaaaaaaaaaa"):
        ports.reserve("b" * 64, [PortRequest(80, host_port=str(number))])
    assert ports.reserve("b" * 64, [PortRequest(80, "udp", HERE, str(number))])
    ports.release("a" * 64)
    assert ports.reserve("c" * 64, [request])


def test_a_port_of_another_program_is_told_with_its_name(ports: Ports) -> None:
    with socket.socket() as other:
        other.bind((HERE, 0))
        other.listen()
        number = other.getsockname()[1]
        with pytest.raises(Conflict, match=rf"already allocated by \S+ .*\(pid {os.getpid()}\)|\(pid {os.getpid()}\)"):
            ports.reserve("a" * 64, [PortRequest(80, host_ip=HERE, host_port=str(number))])


def test_others_can_not_take_what_is_reserved(ports: Ports) -> None:
    number = free()
    ports.reserve("a" * 64, [PortRequest(80, "tcp", HERE, str(number)), PortRequest(80, "udp", HERE, str(number))])
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as other:
            if kind == socket.SOCK_STREAM:
                other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with pytest.raises(OSError, match="in use"):
                other.bind((HERE, number))


def test_all_or_none(ports: Ports) -> None:
    first, second = free(), free()
    ports.reserve("a" * 64, [PortRequest(80, host_ip=HERE, host_port=str(second))])
    with pytest.raises(Conflict):
        ports.reserve("b" * 64, [PortRequest(1, host_ip=HERE, host_port=str(n)) for n in (first, second)])
    assert ports.of("b" * 64) == []
    assert ports.reserve("c" * 64, [PortRequest(80, host_ip=HERE, host_port=str(first))])


def test_any_free_port(ports: Ports) -> None:
    found = ports.reserve("a" * 64, [PortRequest(n, host_ip=HERE) for n in range(1, 6)])
    assert len({port.host_port for port in found}) == 5
    assert all(49153 <= port.host_port <= 65535 for port in found)


def test_one_of_a_range(ports: Ports) -> None:
    with socket.socket() as other:
        other.bind((HERE, 41000))
        other.listen()
        request = PortRequest(80, host_ip=HERE, host_port="41000-41001")
        assert ports.reserve("a" * 64, [request])[0].host_port == 41001
        with pytest.raises(Conflict, match="every port of 41000-41001/tcp"):
            ports.reserve("b" * 64, [request])


def test_requests_that_can_not_be(ports: Ports) -> None:
    with pytest.raises(Unsupported, match="::1") as refusal:
        ports.reserve("a", [PortRequest(80, host_ip="[::1]", host_port="8080")])
    assert "127.0.0.1" in refusal.value.hint
    with pytest.raises(Invalid, match=r"203\.0\.113\.77 is not an address of this host"):
        ports.reserve("a", [PortRequest(80, host_ip="203.0.113.77", host_port="8080")])
    for wrong in (PortRequest(80, "icmp"), PortRequest(0), PortRequest(80, host_ip="nonsense"), PortRequest(80, host_port="x")):
        with pytest.raises(Invalid):
            ports.reserve("a", [wrong])
    assert ports.holders() == {}


def test_adopting_a_port_that_was_lost_is_told_but_kept(ports: Ports) -> None:
    with socket.socket() as other:
        other.bind((HERE, 0))
        other.listen()
        lost = Published(80, "tcp", HERE, other.getsockname()[1])
        kept = Published(81, "tcp", HERE, free())
        assert ports.adopt("a" * 64, [lost, kept]) == [lost]
    assert ports.of("a" * 64) == [lost, kept]


def test_a_failed_request_leaves_what_was_there(ports: Ports) -> None:
    first, second = free(), free()
    held = ports.reserve("a" * 64, [PortRequest(80, host_ip=HERE, host_port=str(first))])
    with pytest.raises(Invalid):
        ports.reserve("a" * 64, [PortRequest(1, host_ip=HERE, host_port=str(second)), PortRequest(0)])
    assert ports.of("a" * 64) == held
    assert ports.reserve("b" * 64, [PortRequest(1, host_ip=HERE, host_port=str(second))])
    assert ports.release("a" * 64, []) == []
    assert ports.release("a" * 64, held) == held


def test_any_address_is_of_both_versions_where_the_workload_has_both(ports: Ports) -> None:
    four, six = ports.reserve("a" * 64, [PortRequest(80)], ipv6=True)
    assert (four.host_ip, six.host_ip) == ("0.0.0.0", "::")
    assert four.host_port == six.host_port
    with pytest.raises(Conflict, match="workload aaaaaaaaaaaa"):
        ports.reserve("b" * 64, [PortRequest(80, host_ip="::", host_port=str(six.host_port))], ipv6=True)
    with socket.socket(socket.AF_INET6) as client:
        assert client.connect_ex(("::1", six.host_port)) == errno.ECONNREFUSED  # at once, so that it tries 127.0.0.1
    with pytest.raises(Invalid, match="no IPv6 address"):
        ports.reserve("c" * 64, [PortRequest(80, host_ip="::")])


def test_a_port_that_is_taken_on_one_address_is_taken_on_none(ports: Ports) -> None:
    with socket.socket(socket.AF_INET6) as other:
        other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        other.bind(("::", 0))
        other.listen()
        number = other.getsockname()[1]
        with pytest.raises(Conflict, match=f"port {number}/tcp"):
            ports.reserve("a" * 64, [PortRequest(80, host_port=str(number))], ipv6=True)
    assert ports.holders() == {}
    assert len(ports.reserve("a" * 64, [PortRequest(80, host_port=str(number))], ipv6=True)) == 2
