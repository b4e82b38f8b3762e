"""Links, addresses and routes in network namespaces of the test's own."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator

import pytest

from bothy.linux import links
from bothy.linux import syscalls as sc
from bothy.linux.links import Interface, Route


@pytest.fixture
def here() -> Iterator[int]:
    """The test runs in a new namespace; a descriptor of it."""
    before = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    sc.unshare(sc.CLONE_NEWNET)
    fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        sc.setns(before, sc.CLONE_NEWNET)
        os.close(before)
        os.close(fd)


@pytest.fixture
def there(here: int) -> Iterator[int]:
    """Another one."""
    sc.unshare(sc.CLONE_NEWNET)
    fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    sc.setns(here, sc.CLONE_NEWNET)
    yield fd
    os.close(fd)


def test_a_pair_across_namespaces(here: int, there: int) -> None:
    links.create_bridge("br0", mac="02:42:0a:00:00:01", mtu=1400)
    links.create_veth("by0", "eth0", there, "02:42:0a:00:00:02", bridge="br0", mtu=1400)
    known = links.links()
    assert (known["br0"].kind, known["br0"].mac, known["br0"].mtu, known["br0"].up) == ("bridge", "02:42:0a:00:00:01", 1400, True)
    assert (known["by0"].kind, known["by0"].master, known["by0"].mtu, known["by0"].up) == ("veth", known["br0"].index, 1400, True)
    sc.setns(there, sc.CLONE_NEWNET)
    assert not links.links()["eth0"].up
    links.loopback_up()
    interface = Interface(
        "eth0", "02:42:0a:00:00:03", ["10.0.0.2/24", "fd00::2/64"], [Route("default", "10.0.0.1"), Route("10.9.0.0/16")], 1300
    )
    links.configure(interface)
    links.configure(interface)  # once more changes nothing
    known = links.links()
    assert (known["eth0"].mac, known["eth0"].mtu, known["eth0"].up, known["eth0"].carrier) == (
        "02:42:0a:00:00:03",
        1300,
        True,
        True,
    )
    assert {"10.0.0.2/24", "fd00::2/64"} <= set(links.addresses()["eth0"])
    assert links.addresses()["lo"][0] == "127.0.0.1/8"
    assert set(links.routes()) == {Route("default", "10.0.0.1"), Route("10.9.0.0/16"), Route("10.0.0.0/24")}


def test_a_connection_carries_packets_from_the_start(here: int) -> None:
    links.create_bridge("br0")
    links.add_address("br0", "10.0.0.1/24")
    with socket.socket() as server:
        server.bind(("10.0.0.1", 7000))
        server.listen()
        for number in range(2, 22):
            sc.unshare(sc.CLONE_NEWNET)
            netns = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            sc.setns(here, sc.CLONE_NEWNET)
            interface = Interface("eth0", f"02:42:0a:00:00:{number:02x}", [f"10.0.0.{number}/24"], [Route("default", "10.0.0.1")])
            links.connect(f"by{number}", "br0", netns, interface)
            sc.setns(netns, sc.CLONE_NEWNET)
            client = socket.socket()
            sc.setns(here, sc.CLONE_NEWNET)
            os.close(netns)
            with client:
                client.settimeout(0.9)  # the kernel sends a lost SYN again after a second
                client.connect(("10.0.0.1", 7000))


def test_links_without_ipv6_addresses_keep_quiet(here: int, there: int) -> None:
    links.create_bridge("br0")
    links.connect("by0", "br0", there, Interface("eth0", "02:42:0a:00:00:02", ["10.0.0.2/24"]))
    assert "by0" not in links.addresses()
    sc.setns(there, sc.CLONE_NEWNET)
    assert links.addresses()["eth0"] == ["10.0.0.2/24"]


def test_a_connection_that_fails_leaves_nothing(here: int, there: int) -> None:
    links.create_bridge("br0")
    with pytest.raises(OSError):
        links.connect("by0", "br0", there, Interface("eth0", "02:42:0a:00:00:02", ["10.0.0.2/24"], [Route("default", "10.9.9.9")]))
    assert set(links.links()) == {"lo", "br0"}
    with pytest.raises(OSError):
        links.connect("by0", "nowhere", there, Interface("eth0", "02:42:0a:00:00:02", ["10.0.0.2/24"]))
    assert set(links.links()) == {"lo", "br0"}


def test_settling_ends_without_a_carrier(here: int, there: int) -> None:
    links.create_veth("by0", "eth0", there)
    assert links.settle("by0", seconds=0.05) is False
    sc.setns(there, sc.CLONE_NEWNET)
    links.set_up("eth0")
    assert links.settle("eth0") is True
    sc.setns(here, sc.CLONE_NEWNET)
    assert links.settle("by0") is True


def test_a_tap_lives_as_long_as_its_descriptor(here: int) -> None:
    links.create_bridge("br0")
    fd = links.open_tap("tap0", "br0")
    try:
        tap = links.links()["tap0"]
        assert (tap.kind, tap.up, tap.master) == ("tun", True, links.index_of("br0"))
        assert not os.get_inheritable(fd)
        with pytest.raises(OSError) as refusal:
            links.open_tap("tap0")
        assert refusal.value.errno == errno.EBUSY
    finally:
        os.close(fd)
    assert "tap0" not in links.links()


def test_a_tap_that_can_not_be_attached_is_not_left(here: int) -> None:
    fds = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError) as refusal:
        links.open_tap("tap0", "nowhere")
    assert refusal.value.errno == errno.ENODEV
    assert "tap0" not in links.links()
    assert len(os.listdir("/proc/self/fd")) == fds


def test_links_change(here: int) -> None:
    links.create_bridge("br0")
    links.create_veth("one", "two", here)
    links.set_master("one", "br0")
    assert links.links()["one"].master == links.index_of("br0")
    links.set_hairpin("one")
    with pytest.raises(OSError):
        links.set_hairpin("two")
    links.set_master("one", "")
    assert links.links()["one"].master == 0
    links.set_down("one")
    links.rename("one", "uno")
    links.set_mtu("uno", 1280)
    links.set_mac("uno", "02:00:00:00:00:09")
    uno = links.links()["uno"]
    assert (uno.up, uno.mtu, uno.mac) == (False, 1280, "02:00:00:00:00:09")
    links.add_address("uno", "10.0.0.1/24")
    links.add_address("uno", "10.0.0.1/24")
    assert links.addresses()["uno"] == ["10.0.0.1/24"]
    links.delete_address("uno", "10.0.0.1/24")
    assert "uno" not in links.addresses()
    links.delete_links(["uno", "never-was"])
    assert set(links.links()) == {"lo", "br0"}


def test_the_kernels_words_come_along(here: int) -> None:
    with pytest.raises(OSError, match="Attribute failed policy validation"):
        links.create_bridge("a-name-that-is-too-long")
    with pytest.raises(FileExistsError):
        links.create_veth("lo", "eth0", here)
    for call in (lambda: links.delete_link("none"), lambda: links.set_up("none"), lambda: links.add_address("none", "10.0.0.1/8")):
        with pytest.raises(OSError) as refusal:
            call()
        assert refusal.value.errno == errno.ENODEV
    links.delete_link("none", missing_ok=True)
    with pytest.raises(OSError, match=r"Gateway|gateway|Nexthop|unreachable"):
        links.configure(Interface("lo", "", [], [Route("default", "10.99.0.1")], 65536))
    assert set(links.links()) == {"lo"}


def test_many_links_are_listed(here: int) -> None:
    for number in range(150):
        links.create_bridge(f"br{number}")
    assert len(links.links()) == 151
