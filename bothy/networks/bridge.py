"""A network's bridge on the host: made, addressed, and the kernel's switches set that it needs.

<root>/networks.json                       the networks (written atomically): a subnet once chosen stays
bothy0, by<key>0, by-<network id>          bridges        by<workload id>        host ends of veths, taps
"""

from __future__ import annotations

import errno
import os
import socket
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from bothy.errors import Unavailable
from bothy.linux import links
from bothy.networks.ipam import mac_of
from bothy.networks.model import Network
from bothy.networks.names import host_resolv_conf, nameservers

DEFAULT_MTU = 1500


def exists(name: str) -> bool:
    """Whether there is a link of that name."""
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True


def taken_subnets(*, ignore: str = "") -> list[IPv4Network]:
    """What a new subnet may not overlap: this host's routes, addresses (but those of the link `ignore`) and nameservers."""
    mine = [IPv4Interface(a).network for a in _ipv4(links.addresses().get(ignore, []))]
    taken = [IPv4Network(r.destination) for r in links.routes() if r.destination != "default"]
    taken = [network for network in taken if network not in mine]
    taken += _addressed(ignore)
    for server in nameservers(host_resolv_conf()):
        try:
            taken.append(IPv4Network(server))
        except ValueError:
            continue
    return taken


def _addressed(ignore: str) -> list[IPv4Network]:
    return [IPv4Interface(a).network for name, found in links.addresses().items() if name != ignore for a in _ipv4(found)]


def _ipv4(found: list[str]) -> list[str]:
    return [cidr for cidr in found if ":" not in cidr]


def uplink_mtu() -> int:
    """The MTU that workloads may use: that of the link that leads to the gateway, at most 1500 bytes."""
    try:
        with open("/proc/self/net/route", encoding="ascii") as lines:
            names = [words[0] for words in map(str.split, lines) if len(words) > 7 and words[1] == "00000000" == words[7]]
        known = links.links()
        return min([DEFAULT_MTU, *(known[name].mtu for name in names if name in known)])
    except OSError:
        return DEFAULT_MTU


def make(network: Network, mtu: int) -> None:
    """Make the network's bridge, or complete one that is there; idempotent. Raises Unavailable, OSError."""
    subnet = IPv4Network(network.subnet)
    try:
        # a hardware address of its own: otherwise a bridge takes the lowest of its ports', and changes it as they come and go
        links.create_bridge(network.bridge, mac=mac_of(network.gateway), mtu=mtu)
    except FileExistsError:
        kind = links.links()[network.bridge].kind
        if kind != "bridge":
            raise Unavailable(f"{network.bridge} exists and is no bridge", hint=f"ip link delete {network.bridge}") from None
        links.set_up(network.bridge)
    address = f"{network.gateway}/{subnet.prefixlen}"
    for stale in set(_ipv4(links.addresses().get(network.bridge, []))) - {address}:
        links.delete_address(network.bridge, stale)
    links.add_address(network.bridge, address)
    for name, value in (
        (f"ipv4/conf/{network.bridge}/route_localnet", "1"),  # 127.0.0.1:PORT of the host is rewritten to a workload's address
        (
            f"ipv6/conf/{network.bridge}/disable_ipv6",
            "1",
        ),  # not offered yet; and no router advertisements from workloads (CVE-2020-13401)
        ("ipv4/ip_forward", "1"),
    ):
        sysctl(name, value)


def contested(network: Network) -> bool:
    """Whether an older link has addresses in the network's subnet: of two engines that chose it at once, the later yields."""
    known = links.links()
    mine = known[network.bridge].index
    older = {name for name, link in known.items() if link.index < mine}
    subnet = IPv4Network(network.subnet)
    return any(
        IPv4Interface(cidr).network.overlaps(subnet)
        for name, found in links.addresses().items()
        if name in older
        for cidr in _ipv4(found)
    )


def stray_links(bridges: list[str], wanted: set[str]) -> list[str]:
    """The links on these bridges that are not wanted."""
    known = links.links()
    masters = {known[name].index for name in bridges if name in known}
    return [name for name, link in known.items() if link.master in masters and name not in wanted]


def filters_bridged() -> bool:
    """Whether bridged packets pass the host's IP firewall (br_netfilter)."""
    try:
        with open("/proc/sys/net/bridge/bridge-nf-call-iptables", encoding="ascii") as file:
            return file.read().strip() != "0"
    except OSError:
        return False


def sysctl(name: str, value: str) -> None:
    """Set net.`name` (with slashes) where it has another value. A switch that this kernel lacks is passed over."""
    path = f"/proc/sys/net/{name}"
    try:
        with open(path, encoding="ascii") as file:
            if file.read().strip() == value:
                return
        with open(path, "w", encoding="ascii") as file:
            file.write(value)
    except FileNotFoundError:
        return
    except OSError as exc:
        if exc.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        name = "net." + name.replace("/", ".")
        raise Unavailable(
            f"{name} can not be set: {os.strerror(exc.errno)}", hint=f"set it yourself: sysctl -w {name}={value}"
        ) from exc


def address_in(subnet: str, address: str) -> bool:
    return IPv4Address(address) in IPv4Network(subnet)
