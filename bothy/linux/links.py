"""Network interfaces as data, and the calls that make and configure them: a handful of system calls each.

They follow the rules of all of this room: names of the man pages, errors are OSErrors, no policy. Everything happens in the network
namespace that the caller is in. A veth need not be deleted: it goes with the namespace that its peer is in, in the kernel's own
time; a tap goes with its last file descriptor, at once.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from bothy.linux import netlink, syscalls
from bothy.linux.netlink import Request, Rtnetlink

# linux/if_tun.h
TUNSETIFF, TUNGETIFF = 0x400454CA, 0x800454D2
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
# linux/if.h, linux/sockios.h
IFNAMSIZ = 16
_LOOPBACK = 1


@dataclass(frozen=True)
class Route:
    """`destination` in CIDR form or `default`; `gateway` empty for a route on the link."""

    destination: str
    gateway: str = ""


@dataclass(frozen=True)
class Interface:
    """How an interface looks from inside a workload. Addresses in CIDR form (`172.30.0.2/16`)."""

    name: str
    mac: str
    addresses: list[str]
    routes: list[Route] = field(default_factory=list)
    mtu: int = 1500


@dataclass(frozen=True)
class Attachment:
    """An interface of a workload and where it leads: `link`, the host's end of the pair (or the tap), is put on `bridge`.

    Without a `link` nobody makes it: it is in the workload's network namespace already. `isolated`: from the other
    isolated ports of the bridge, not from the host.
    """

    interface: Interface
    link: str = ""
    bridge: str = ""
    isolated: bool = False


@dataclass(frozen=True)
class Link:
    """An interface as the kernel has it. `master` is the index of the bridge it is on, 0 without one."""

    index: int
    name: str
    kind: str
    mac: str
    mtu: int
    up: bool
    carrier: bool
    master: int = 0


def index_of(name: str) -> int:
    """The kernel's number of a link. OSError(ENODEV) if there is none of that name."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), name) from None


def create_bridge(name: str, *, mac: str = "", mtu: int = 0) -> None:
    """Make a bridge and set it up; its ports forward at once (no spanning tree). FileExistsError if the name is taken."""
    with Rtnetlink() as kernel:
        kernel.batch([netlink.new_bridge(name, mac=mac, mtu=mtu)])


def create_veth(host: str, peer_name: str, netns_fd: int, mac: str = "", *, bridge: str = "", mtu: int = 0) -> None:
    """Make a pair of interfaces: `host` here, up and on `bridge` (if given); `peer_name` with `mac` in `netns_fd`, down.

    One call; a failure leaves nothing. FileExistsError for a taken name, OSError(ENODEV) for a missing bridge.
    """
    master = index_of(bridge) if bridge else None
    with Rtnetlink() as kernel:
        made = netlink.new_veth(host, peer_name, netns_fd, mac=mac, mtu=mtu, master=master, up=False)
        up = netlink.link_request(netlink.RTM_NEWLINK, name=host, up=True)
        try:
            kernel.batch([made, *_quiet(host), up])
        except FileExistsError:
            raise
        except OSError:
            delete_link(host, missing_ok=True)
            raise


def delete_link(name: str, *, missing_ok: bool = False) -> None:
    """Delete an interface; of a veth, both ends. OSError(ENODEV) if there is none, unless `missing_ok`."""
    with Rtnetlink() as kernel:
        try:
            kernel.batch([netlink.link_request(netlink.RTM_DELLINK, name=name)])
        except OSError as exc:
            if not (missing_ok and exc.errno == errno.ENODEV):
                raise


def delete_links(names: Iterable[str]) -> None:
    """Delete several interfaces in one call; those that are not there are passed over."""
    with Rtnetlink() as kernel:
        for name in names:
            try:
                kernel.batch([netlink.link_request(netlink.RTM_DELLINK, name=name)])
            except OSError as exc:
                if exc.errno != errno.ENODEV:
                    raise


def set_master(link: str, bridge: str) -> None:
    """Put a link on a bridge; an empty `bridge` takes it off."""
    _change(link, master=index_of(bridge) if bridge else 0)


def set_up(name: str, bridge: str = "") -> None:
    """Set a link up, and in the same request put it on `bridge` (if given); it makes itself no IPv6 address then."""
    master = index_of(bridge) if bridge else None
    with Rtnetlink() as kernel:
        quiet = _quiet(name) if bridge else []
        kernel.batch([*quiet, netlink.link_request(netlink.RTM_NEWLINK, name=name, up=True, master=master)])


def plug(name: str, bridge: str, *, new: str = "", mtu: int = 1500) -> None:
    """Put a link on a bridge and set it up, under another name if one is given; it makes itself no IPv6 address.

    FileExistsError for a taken name; the link may have lost its IPv6 then, nothing else. ENODEV without link or bridge.
    """
    index, master = index_of(name), index_of(bridge)
    with Rtnetlink() as kernel:
        rename = new if new != name else ""
        up = netlink.link_request(netlink.RTM_NEWLINK, index=index, name=rename, up=True, mtu=mtu, master=master)
        kernel.batch([*_quiet(name), up])


def move(name: str, netns_fd: int, new: str) -> None:
    """Move a link, which goes down and off its bridge by that, into another network namespace, under a new name.

    There it may begin with its old one for a moment. A `%d` in the new name stands for a number that is free.
    """
    there = netlink.u32(netlink.IFLA_NET_NS_FD, netns_fd)
    with Rtnetlink() as kernel:
        kernel.batch([netlink.link_request(netlink.RTM_NEWLINK, index=index_of(name), name=new, up=False, extra=there)])


def set_aside(name: str, new: str) -> None:
    """Take a link off its bridge, set it down and rename it. ENODEV if it is not there."""
    index = index_of(name)
    with Rtnetlink() as kernel:
        off = netlink.link_request(netlink.RTM_NEWLINK, index=index, up=False, master=0)
        kernel.batch([off, netlink.link_request(netlink.RTM_NEWLINK, index=index, name=new)])


def set_hairpin(name: str, *, on: bool = True) -> None:
    """Whether the bridge that a link is on may send a frame back out by it. OSError if it is on none."""
    index = index_of(name)
    with Rtnetlink() as kernel:
        kernel.batch([netlink.hairpin_request(index, on=on)])


def set_isolated(name: str) -> None:
    """Keep a link from the other isolated ports of the bridge that it is on. OSError if it is on none."""
    index = index_of(name)
    with Rtnetlink() as kernel:
        kernel.batch([netlink.isolation_request(index)])


def set_down(name: str) -> None:
    """Set a link down."""
    _change(name, up=False)


def set_mtu(name: str, mtu: int) -> None:
    """Set a link's greatest frame in bytes."""
    _change(name, mtu=mtu)


def set_mac(name: str, mac: str) -> None:
    """Set a link's hardware address."""
    _change(name, mac=mac)


def rename(name: str, new: str) -> None:
    """Rename a link (down or, from Linux 6.3 on, up)."""
    index = index_of(name)
    with Rtnetlink() as kernel:
        kernel.batch([netlink.link_request(netlink.RTM_NEWLINK, index=index, name=new)])


def _change(name: str, *, up: bool | None = None, mac: str = "", mtu: int = 0, master: int | None = None) -> None:
    with Rtnetlink() as kernel:
        kernel.batch([netlink.link_request(netlink.RTM_NEWLINK, name=name, up=up, mac=mac, mtu=mtu, master=master)])


def add_address(name: str, cidr: str) -> None:
    """Give a link an address (`172.30.0.1/16`); one that it has already is no error."""
    index = index_of(name)
    with Rtnetlink() as kernel:
        kernel.batch([netlink.address_request(netlink.RTM_NEWADDR, index, cidr)])


def delete_address(name: str, cidr: str) -> None:
    """Take an address from a link. OSError(EADDRNOTAVAIL) if it has it not."""
    index = index_of(name)
    with Rtnetlink() as kernel:
        kernel.batch([netlink.address_request(netlink.RTM_DELADDR, index, cidr)])


def loopback_up() -> None:
    """Set `lo` up; the kernel gives it its addresses."""
    with Rtnetlink() as kernel:
        kernel.batch([netlink.link_request(netlink.RTM_NEWLINK, index=_LOOPBACK, up=True)])


def connect(host: str, bridge: str, netns_fd: int, interface: Interface, *, isolated: bool = False) -> None:
    """Make a pair of which `host` is here on `bridge` and the other end is, fully configured, `interface` in `netns_fd`.

    When it returns, packets pass. The caller is for a moment in that namespace, so it has one thread. A failure leaves nothing.
    """
    create_veth(host, interface.name, netns_fd, interface.mac, bridge=bridge, mtu=interface.mtu)
    here = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if isolated:
            set_isolated(host)
        syscalls.setns(netns_fd, syscalls.CLONE_NEWNET)
        try:
            configure(interface)
        finally:
            syscalls.setns(here, syscalls.CLONE_NEWNET)
        settle(host, bridge)
    except BaseException:
        delete_link(host, missing_ok=True)
        raise
    finally:
        os.close(here)


def settle(*names: str, seconds: float = 0.2) -> bool:
    """Wait until the kernel has noticed that these links have their carrier; false if one has none in that time.

    That is work it does later by itself: until then a bridge drops what a new port brings (and, with its first port, all that it
    sends itself), and a first SYN that is lost costs a second. From Linux 6.8 on asking for a link makes it do that work at
    once; before that we wait to be told.
    """
    end = 0.0
    with Rtnetlink() as kernel:
        for name in names:
            request = netlink.link_request(netlink.RTM_GETLINK, name=name)
            while not netlink.split_link(kernel.get(request))[1] & netlink.IFF_RUNNING:
                end = end or time.monotonic() + seconds
                if not kernel.wait_for_link_event(end - time.monotonic()):
                    return False
    return True


def configure(interface: Interface) -> None:
    """Make the link of that name, which exists in this namespace, as the plan says: mac, mtu, addresses, up, then routes.

    One round trip. OSError(ENODEV) without such a link; after another failure the link may be partly configured. The other
    end of a pair can be in use a little later only (see `settle`).
    """
    index = index_of(interface.name)
    requests = []
    if any(":" in address for address in interface.addresses):
        _settled_by_us(interface.name)
    else:
        requests = _quiet(interface.name)
    requests.append(netlink.link_request(netlink.RTM_NEWLINK, index=index, mac=interface.mac, mtu=interface.mtu, up=True))
    requests += [netlink.address_request(netlink.RTM_NEWADDR, index, cidr) for cidr in interface.addresses]
    requests += [netlink.route_request(netlink.RTM_NEWROUTE, index, r.destination, r.gateway) for r in interface.routes]
    with Rtnetlink() as kernel:
        kernel.batch(requests)


def add_routes(interface: Interface) -> None:
    """Set the routes of an interface that is there and up, in the place of others to the same destinations. OSError(ENODEV)."""
    index = index_of(interface.name)
    with Rtnetlink() as kernel:
        kernel.batch(netlink.route_request(netlink.RTM_NEWROUTE, index, r.destination, r.gateway) for r in interface.routes)


def open_tap(name: str, bridge: str = "", *, isolated: bool = False) -> int:
    """A tap device of that name for a machine, made if it is not there, and (with `bridge`) on that bridge and up.

    The caller owns the fd (close-on-exec); the device goes with it. Frames carry a virtio-net header (IFF_VNET_HDR), as
    QEMU's `-netdev tap,fd=` expects. OSError(EBUSY) if someone else has it.
    """
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        request = struct.pack("=16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)
        fcntl.ioctl(fd, TUNSETIFF, request)
        if bridge:
            set_up(name, bridge)
        if bridge and isolated:
            set_isolated(name)
    except BaseException:
        os.close(fd)
        raise
    return fd


def tap_name(fd: int) -> str:
    """The name of the tap that a descriptor is of (TUNGETIFF)."""
    return fcntl.ioctl(fd, TUNGETIFF, bytes(40))[:IFNAMSIZ].rstrip(b"\0").decode()


def links() -> dict[str, Link]:
    """All links of this namespace by name."""
    with Rtnetlink() as kernel:
        found = map(_link, kernel.dump(netlink.RTM_GETLINK, netlink.link_dump_body()))
        return {link.name: link for link in found}


def _link(payload: bytes) -> Link:
    index, flags, attributes = netlink.split_link(payload)
    info = netlink.attributes(attributes.get(netlink.IFLA_LINKINFO, b""))
    return Link(
        index=index,
        name=_text(attributes.get(netlink.IFLA_IFNAME)),
        kind=_text(info.get(netlink.IFLA_INFO_KIND)),
        mac=attributes.get(netlink.IFLA_ADDRESS, b"").hex(":"),
        mtu=_number(attributes.get(netlink.IFLA_MTU)),
        up=bool(flags & netlink.IFF_UP),
        carrier=bool(flags & netlink.IFF_LOWER_UP),
        master=_number(attributes.get(netlink.IFLA_MASTER)),
    )


def addresses() -> dict[str, list[str]]:
    """The addresses of this namespace's links, in CIDR form, by link name."""
    found: dict[str, list[str]] = {}
    names = {link.index: link.name for link in links().values()}
    with Rtnetlink() as kernel:
        for payload in kernel.dump(netlink.RTM_GETADDR, netlink.address_dump_body()):
            family, prefix, index, attributes = netlink.split_address(payload)
            raw = attributes.get(netlink.IFA_LOCAL) or attributes.get(netlink.IFA_ADDRESS)
            if raw and family in (socket.AF_INET, socket.AF_INET6):
                found.setdefault(names.get(index, ""), []).append(f"{socket.inet_ntop(family, raw)}/{prefix}")
    return found


def routes() -> list[Route]:
    """The IPv4 routes of the main table."""
    found = []
    with Rtnetlink() as kernel:
        for payload in kernel.dump(netlink.RTM_GETROUTE, netlink.route_dump_body()):
            family, prefix, table, attributes = netlink.split_route(payload)
            if table != netlink.RT_TABLE_MAIN:
                continue
            target, via = attributes.get(netlink.RTA_DST), attributes.get(netlink.RTA_GATEWAY)
            destination = f"{socket.inet_ntop(family, target)}/{prefix}" if target else "default"
            found.append(Route(destination, socket.inet_ntop(family, via) if via else ""))
    return found


def _quiet(name: str) -> list[Request]:
    """For links that have no use for IPv6, before they are set up: each would announce itself to every port of the bridge, which
    is much when many start."""
    if not os.path.exists("/proc/net/if_inet6"):
        return []
    return [netlink.link_request(netlink.RTM_NEWLINK, name=name, extra=netlink.no_ipv6_of_its_own())]


def _settled_by_us(name: str) -> None:
    """A link whose addresses and routes are given: it takes none from whoever says that it is a router (CVE-2020-13401), and does
    not ask for a second whether somebody has its addresses (RFC 4862), in which nobody from beyond its own network would find it.
    """
    for switch in ("accept_ra", "accept_dad"):
        try:
            fd = os.open(f"/proc/sys/net/ipv6/conf/{name}/{switch}", os.O_WRONLY | os.O_CLOEXEC)
        except OSError:
            return  # a kernel without IPv6: its addresses are refused next
        try:
            os.write(fd, b"0")
        finally:
            os.close(fd)


def _text(raw: bytes | None) -> str:
    return (raw or b"").rstrip(b"\0").decode(errors="replace")


def _number(raw: bytes | None) -> int:
    return int(struct.unpack("=I", raw)[0]) if raw and len(raw) == 4 else 0
