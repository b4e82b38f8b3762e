"""A network's bridge on the host: made, addressed, and the kernel's switches set that it needs.

<root>/networks.json                       the networks (written atomically): a subnet once chosen stays
bothy0, by-<network id>                    bridges        by<workload id>        host ends of veths, taps
by<key>0, by<key>-<network id>             those of an engine with a run folder of its own
"""

from __future__ import annotations

import errno
import os
import socket
from ipaddress import IPv4Interface, IPv4Network, ip_interface, ip_network

from bothy.errors import Unavailable
from bothy.linux import links
from bothy.networks.ipam import IPNetwork, mac_of
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


def taken_subnets(*, ignore: str = "") -> list[IPNetwork]:
    """What a new subnet may not overlap: this host's routes, addresses (but those of the link `ignore`) and nameservers."""
    known = links.addresses()
    mine = [ip_interface(a).network for a in known.get(ignore, [])]
    taken: list[IPNetwork] = [ip_network(r.destination) for r in links.routes() if r.destination != "default"]
    taken = [network for network in taken if network not in mine]
    taken += [ip_interface(a).network for name, found in known.items() if name != ignore for a in found]
    for server in nameservers(host_resolv_conf()):
        try:
            taken.append(ip_network(server.partition("%")[0]))
        except ValueError:
            continue
    return taken


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
    try:
        # a hardware address of its own: otherwise a bridge takes the lowest of its ports', and changes it as they come and go
        links.create_bridge(network.bridge, mac=mac_of(network.gateway), mtu=mtu)
    except FileExistsError:
        kind = links.links()[network.bridge].kind
        if kind != "bridge":
            raise Unavailable(f"{network.bridge} exists and is no bridge", hint=f"ip link delete {network.bridge}") from None
        links.set_up(network.bridge)
    except OSError as exc:
        if exc.errno != errno.EOPNOTSUPP:
            raise
        hint = "modprobe bridge; without it only --network none and host work"
        raise Unavailable("this kernel has no network bridges", hint=hint) from exc
    _switch(network)
    wanted = {f"{network.gateway}/{ip_network(network.subnet).prefixlen}"}
    if network.subnet6:
        wanted.add(f"{network.gateway6}/{ip_network(network.subnet6).prefixlen}")
    there = {a for a in links.addresses().get(network.bridge, []) if not ip_interface(a).is_link_local}
    for stale in there - wanted:
        links.delete_address(network.bridge, stale)
    for address in wanted:
        links.add_address(network.bridge, address)


def _switch(network: Network) -> None:
    """The kernel's switches for a bridge."""
    sysctl(f"ipv4/conf/{network.bridge}/route_localnet", "1")  # 127.0.0.1:PORT of the host is rewritten to a workload's address
    sysctl("ipv4/ip_forward", "1")
    if not network.subnet6:
        sysctl(f"ipv6/conf/{network.bridge}/disable_ipv6", "1")
        return
    sysctl(f"ipv6/conf/{network.bridge}/accept_ra", "0")  # no router advertisements from workloads (CVE-2020-13401)
    # its own link-local address is that of whoever asks for a workload: not to be had for a second, it would be found by nobody
    sysctl(f"ipv6/conf/{network.bridge}/accept_dad", "0")
    sysctl(f"ipv6/conf/{network.bridge}/disable_ipv6", "0")
    _forward_ipv6()


def _forward_ipv6() -> None:
    """Let the host forward IPv6. A host that does heeds its routers no more, unless it is told to (accept_ra 2)."""
    if read_sysctl("ipv6/conf/all/forwarding") != "0":
        return
    for name in os.listdir("/proc/sys/net/ipv6/conf"):
        if name != "all" and read_sysctl(f"ipv6/conf/{name}/accept_ra") == "1":
            sysctl(f"ipv6/conf/{name}/accept_ra", "2")
    sysctl("ipv6/conf/all/forwarding", "1")


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
    """The links on these bridges that are not wanted. A machine's tap may have a further name, while its last one is taken down."""
    known = links.links()
    masters = {known[name].index for name in bridges if name in known}
    further = tuple(f"{name[:11]}r" for name in wanted)
    return [name for name, link in known.items() if link.master in masters and name not in wanted and not name.startswith(further)]


def filters_bridged() -> bool:
    """Whether bridged packets pass the host's IP firewall (br_netfilter)."""
    return read_sysctl("bridge/bridge-nf-call-iptables") not in ("", "0")


def read_sysctl(name: str) -> str:
    """The value of net.`name` (with slashes); empty for a switch that this kernel lacks."""
    try:
        with open(f"/proc/sys/net/{name}", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


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
