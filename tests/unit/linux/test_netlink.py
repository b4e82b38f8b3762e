"""The codec's bytes: attributes there and back, requests as the kernel wants them, and what is malformed."""

from __future__ import annotations

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothy.linux import links, netlink


@given(st.dictionaries(st.integers(1, 0x3FFF), st.binary(max_size=40), max_size=10))
def test_attributes_there_and_back(wanted: dict[int, bytes]) -> None:
    data = b"".join(netlink.attribute(kind, value) for kind, value in wanted.items())
    assert len(data) % 4 == 0
    assert netlink.attributes(data) == wanted


@given(st.binary(max_size=200))
def test_malformed_attributes_end_the_reading(data: bytes) -> None:
    assert all(len(value) <= len(data) for value in netlink.attributes(data).values())


def test_a_veth_is_one_request() -> None:
    kind, flags, body = netlink.new_veth("host", "eth0", 7, mac="02:42:ac:1e:00:02", mtu=1400, master=3)
    assert kind == netlink.RTM_NEWLINK
    assert flags == netlink.NLM_F_CREATE | netlink.NLM_F_EXCL
    outer = netlink.attributes(body[16:])
    assert outer[netlink.IFLA_IFNAME] == b"host\0"
    assert outer[netlink.IFLA_MASTER] == struct.pack("=I", 3)
    info = netlink.attributes(outer[netlink.IFLA_LINKINFO])
    assert info[netlink.IFLA_INFO_KIND] == b"veth\0"
    there = netlink.attributes(netlink.attributes(info[netlink.IFLA_INFO_DATA])[netlink.VETH_INFO_PEER][16:])
    assert there[netlink.IFLA_IFNAME] == b"eth0\0"
    assert there[netlink.IFLA_ADDRESS] == bytes.fromhex("0242ac1e0002")
    assert there[netlink.IFLA_NET_NS_FD] == struct.pack("=I", 7)
    assert there[netlink.IFLA_MTU] == struct.pack("=I", 1400)


def test_an_address_has_its_broadcast() -> None:
    _, _, body = netlink.address_request(netlink.RTM_NEWADDR, 2, "172.30.0.2/16")
    found = netlink.attributes(body[8:])
    assert found[netlink.IFA_BROADCAST] == bytes([172, 30, 255, 255])
    assert netlink.IFA_BROADCAST not in netlink.attributes(netlink.address_request(netlink.RTM_NEWADDR, 2, "fd00::1/64")[2][8:])


@pytest.mark.parametrize("wrong", ["", "nonsense", "1.2.3.4/33", "1.2.3.4/-1", "fd00::1/129", "1.2.3.4/x"])
def test_addresses_that_are_none(wrong: str) -> None:
    with pytest.raises(ValueError, match="is not an address"):
        netlink.address_request(netlink.RTM_NEWADDR, 1, wrong)


@pytest.mark.parametrize("wrong", ["", "02:42", "zz:42:ac:1e:00:02"])
def test_hardware_addresses_that_are_none(wrong: str) -> None:
    with pytest.raises(ValueError):
        netlink.mac_bytes(wrong)


def test_what_any_user_may_see_and_may_not_do() -> None:
    assert links.links()["lo"].index == 1
    assert "127.0.0.1/8" in links.addresses()["lo"]
    with pytest.raises(OSError) as refusal:
        links.delete_link("nothing-here")
    assert refusal.value.errno in (errno.ENODEV, errno.EPERM)
