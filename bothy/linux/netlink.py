"""A small rtnetlink codec: just enough to make, change, list and delete links, addresses and routes.

    header (16 bytes)                       payload of the type            attributes, each padded to 4 bytes
    length type flags sequence port   │   ifinfomsg / ifaddrmsg / rtmsg   │  length type value … (nested: value is attributes)

Several requests go to the kernel in one `sendmsg`: it works through them before that call returns, so a batch is one round
trip. Only the last request asks for an acknowledgement; errors are reported for all of them, with the kernel's own words
(extended acknowledgement), as OSErrors.

Sources: netlink(7), rtnetlink(7), linux/netlink.h, linux/rtnetlink.h, linux/if_link.h. Out of scope: policy, waiting for events,
generic netlink, nf_tables.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Iterable, Iterator

# linux/netlink.h
NETLINK_ROUTE = 0
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x01, 0x04, 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE, NLM_F_APPEND = 0x100, 0x200, 0x400, 0x800
NLM_F_CAPPED, NLM_F_ACK_TLVS = 0x100, 0x200
NLMSG_ERROR, NLMSG_DONE = 2, 3
SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK = 270, 1, 10, 11, 12
RTNLGRP_LINK = 1
NLMSGERR_ATTR_MSG = 1
NLA_F_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF

# linux/rtnetlink.h
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RT_TABLE_MAIN = 254
RTPROT_BOOT, RT_SCOPE_UNIVERSE, RT_SCOPE_LINK, RTN_UNICAST = 3, 0, 253, 1
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_TABLE = 1, 4, 5, 15

# linux/if.h, linux/if_link.h, linux/if_addr.h
IFF_UP, IFF_RUNNING, IFF_LOWER_UP = 0x1, 0x40, 0x10000
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER, IFLA_PROTINFO, IFLA_LINKINFO, IFLA_AF_SPEC, IFLA_NET_NS_FD = (
    1,
    3,
    4,
    10,
    12,
    18,
    26,
    28,
)
IFLA_INFO_KIND, IFLA_INFO_DATA = 1, 2
VETH_INFO_PEER = 1
IFLA_BRPORT_MODE, IFLA_BRPORT_ISOLATED = 4, 33
IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE = 8, 1
IFLA_BR_FORWARD_DELAY, IFLA_BR_STP_STATE = 1, 5
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_FLAGS = 1, 2, 4, 8
IFA_F_NODAD = 0x02

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_IFINFOMSG = struct.Struct("=BxHiII")  # family, type, index, flags, change
_IFADDRMSG = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_RTMSG = struct.Struct("=BBBBBBBBI")  # family, dst len, src len, tos, table, protocol, scope, type, flags

Attributes = dict[int, bytes]
Request = tuple[int, int, bytes]


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def u32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def nested(kind: int, *inner: bytes) -> bytes:
    return attribute(kind | NLA_F_NESTED, b"".join(inner))


def attributes(data: bytes) -> Attributes:
    """The attributes in `data` by type, flags removed; of a type that comes twice the last one. Stops at what is malformed."""
    found: Attributes = {}
    at = 0
    while at + 4 <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < 4 or at + length > len(data):
            break
        found[kind & NLA_TYPE_MASK] = data[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


def mac_bytes(mac: str) -> bytes:
    """`02:42:ac:1e:00:02` as six bytes. Raises ValueError."""
    raw = bytes.fromhex(mac.replace(":", ""))
    if len(raw) != 6:
        raise ValueError(f"{mac!r} is not a hardware address")
    return raw


def link_request(
    command: int,
    *,
    flags: int = 0,
    index: int = 0,
    name: str = "",
    up: bool | None = None,
    mac: str = "",
    mtu: int = 0,
    master: int | None = None,
    extra: bytes = b"",
) -> Request:
    """A request about one link, named by index or name; `name` beside an index renames it. `extra`: more attributes."""
    return command, flags, _link_body(index=index, name=name, up=up, mac=mac, mtu=mtu, master=master) + extra


def _link_body(
    *, index: int = 0, name: str = "", up: bool | None = None, mac: str = "", mtu: int = 0, master: int | None = None
) -> bytes:
    parts = [_IFINFOMSG.pack(socket.AF_UNSPEC, 0, index, IFF_UP if up else 0, 0 if up is None else IFF_UP)]
    if name:
        parts.append(text(IFLA_IFNAME, name))
    if mac:
        parts.append(attribute(IFLA_ADDRESS, mac_bytes(mac)))
    if mtu:
        parts.append(u32(IFLA_MTU, mtu))
    if master is not None:
        parts.append(u32(IFLA_MASTER, master))
    return b"".join(parts)


def new_bridge(name: str, *, mac: str = "", mtu: int = 0, up: bool = True) -> Request:
    """A bridge without spanning tree, so that its ports forward at once."""
    data = nested(IFLA_INFO_DATA, u32(IFLA_BR_STP_STATE, 0), u32(IFLA_BR_FORWARD_DELAY, 0))
    info = nested(IFLA_LINKINFO, text(IFLA_INFO_KIND, "bridge"), data)
    return link_request(RTM_NEWLINK, flags=NLM_F_CREATE | NLM_F_EXCL, name=name, mac=mac, mtu=mtu, up=up, extra=info)


def new_veth(
    host: str,
    peer: str,
    netns_fd: int,
    *,
    mac: str = "",
    mtu: int = 0,
    master: int | None = None,
    up: bool = True,
) -> Request:
    """A pair: `host` here (on `master`, up), `peer` with `mac` in the network namespace `netns_fd` (down)."""
    there = _link_body(name=peer, mac=mac, mtu=mtu) + u32(IFLA_NET_NS_FD, netns_fd)
    info = nested(IFLA_LINKINFO, text(IFLA_INFO_KIND, "veth"), nested(IFLA_INFO_DATA, nested(VETH_INFO_PEER, there)))
    return link_request(RTM_NEWLINK, flags=NLM_F_CREATE | NLM_F_EXCL, name=host, mtu=mtu, master=master, up=up or None, extra=info)


def no_ipv6_of_its_own() -> bytes:
    """More attributes for a link (not a new one): it makes itself no IPv6 address when it comes up, and so says nothing."""
    return nested(IFLA_AF_SPEC, nested(socket.AF_INET6, attribute(IFLA_INET6_ADDR_GEN_MODE, bytes([IN6_ADDR_GEN_MODE_NONE]))))


def hairpin_request(index: int, *, on: bool) -> Request:
    """Whether a bridge may send a frame out by the port (the link `index`) that it came in by."""
    body = _IFINFOMSG.pack(socket.AF_BRIDGE, 0, index, 0, 0)
    return RTM_SETLINK, 0, body + nested(IFLA_PROTINFO, attribute(IFLA_BRPORT_MODE, bytes([on])))


def isolation_request(index: int) -> Request:
    """Keep the port (the link `index`) of a bridge from its other isolated ports."""
    body = _IFINFOMSG.pack(socket.AF_BRIDGE, 0, index, 0, 0)
    return RTM_SETLINK, 0, body + nested(IFLA_PROTINFO, attribute(IFLA_BRPORT_ISOLATED, b"\1"))


def _split(cidr: str) -> tuple[int, bytes, int]:
    """Family, address and prefix length of `172.30.0.2/16`; a bare address has the full length. Raises ValueError."""
    address, _, length = cidr.partition("/")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        raw = socket.inet_pton(family, address)
        prefix = int(length) if length else len(raw) * 8
    except (OSError, ValueError):
        raise ValueError(f"{cidr!r} is not an address") from None
    if not 0 <= prefix <= len(raw) * 8:
        raise ValueError(f"{cidr!r} is not an address")
    return family, raw, prefix


def address_request(command: int, index: int, cidr: str) -> Request:
    """Add (RTM_NEWADDR) or delete (RTM_DELADDR) an address of the link `index`. Adding one that is there is no error."""
    family, raw, prefix = _split(cidr)
    body = _IFADDRMSG.pack(family, prefix, 0, RT_SCOPE_UNIVERSE, index) + attribute(IFA_LOCAL, raw) + attribute(IFA_ADDRESS, raw)
    if family == socket.AF_INET6:
        body += u32(IFA_FLAGS, IFA_F_NODAD)
    elif prefix < 31:
        hosts = (1 << (32 - prefix)) - 1
        body += attribute(IFA_BROADCAST, (int.from_bytes(raw, "big") | hosts).to_bytes(4, "big"))
    return command, NLM_F_CREATE | NLM_F_REPLACE if command == RTM_NEWADDR else 0, body


def route_request(command: int, index: int, destination: str, gateway: str = "") -> Request:
    """Add (RTM_NEWROUTE) or delete (RTM_DELROUTE) a route in the main table; `destination` is CIDR or `default`."""
    family: int = socket.AF_INET6 if ":" in destination + gateway else socket.AF_INET
    parts, prefix = [u32(RTA_OIF, index)], 0
    if destination != "default":
        family, raw, prefix = _split(destination)
        parts.append(attribute(RTA_DST, raw))
    if gateway:
        parts.append(attribute(RTA_GATEWAY, _split(gateway)[1]))
    scope = RT_SCOPE_UNIVERSE if gateway or family == socket.AF_INET6 else RT_SCOPE_LINK
    body = _RTMSG.pack(family, prefix, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, scope, RTN_UNICAST, 0) + b"".join(parts)
    return command, NLM_F_CREATE | NLM_F_REPLACE if command == RTM_NEWROUTE else 0, body


class Rtnetlink:
    """A socket to the kernel's routing subsystem in the network namespace that the caller is in when it is made.

    A context manager; not to be shared by threads. All methods raise OSError.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE)
        self._sequence = 0
        self._listening = False
        try:
            for option in (NETLINK_EXT_ACK, NETLINK_CAP_ACK, NETLINK_GET_STRICT_CHK):
                self._socket.setsockopt(SOL_NETLINK, option, 1)
        except OSError:
            self._socket.close()
            raise

    def __enter__(self) -> Rtnetlink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def batch(self, requests: Iterable[Request]) -> None:
        """Have the kernel carry out all requests, in order, in one call.

        Raises OSError for the first that failed, with the kernel's words; the others have been tried all the same.
        """
        todo = list(requests)
        if not todo:
            return
        data = bytearray()
        for number, (kind, flags, body) in enumerate(todo, 1):
            self._sequence += 1
            ack = NLM_F_ACK if number == len(todo) else 0
            data += _HEADER.pack(_HEADER.size + len(body), kind, flags | NLM_F_REQUEST | ack, self._sequence, 0) + body
            data += bytes(-len(data) % 4)
        self._socket.send(data)
        failure: OSError | None = None
        for kind, flags, sequence, body in self._replies():
            if kind != NLMSG_ERROR:
                continue
            failure = failure or _error(body, flags)
            if sequence == self._sequence:
                break
        if failure:
            raise failure

    def dump(self, kind: int, body: bytes) -> Iterator[bytes]:
        """The payloads of all objects of one kind (RTM_GETLINK with an ifinfomsg, …)."""
        self._sequence += 1
        flags = NLM_F_REQUEST | NLM_F_DUMP
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), kind, flags, self._sequence, 0) + body)
        found = []
        for reply, reply_flags, sequence, payload in self._replies():
            if sequence != self._sequence:
                continue
            if reply == NLMSG_ERROR:
                raise _error(payload, reply_flags) or OSError("a dump ended early")
            if reply == NLMSG_DONE:
                break
            found.append(payload)
        return iter(found)

    def get(self, request: Request) -> bytes:
        """The payload of the one object asked for (RTM_GETLINK with a name or an index)."""
        kind, flags, body = request
        self._sequence += 1
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), kind, flags | NLM_F_REQUEST, self._sequence, 0) + body)
        for reply, reply_flags, sequence, payload in self._replies():
            if sequence == self._sequence:
                if reply == NLMSG_ERROR:
                    raise _error(payload, reply_flags) or OSError("no answer came")
                return payload
        raise AssertionError("unreachable")

    def wait_for_link_event(self, seconds: float) -> bool:
        """Wait for any link to change; false when none did. The first call only begins to listen, and returns at once."""
        if not self._listening:
            self._socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, RTNLGRP_LINK)
            self._listening = True
            return True
        ready, _, _ = select.select([self._socket], [], [], max(seconds, 0))
        if ready:
            self._socket.recv(1 << 17)
        return bool(ready)

    def _replies(self) -> Iterator[tuple[int, int, int, bytes]]:
        """(type, flags, sequence, payload) of every message that comes, without an end of its own."""
        while True:
            data = self._socket.recv(1 << 17)
            at = 0
            while at + _HEADER.size <= len(data):
                length, kind, flags, sequence, _ = _HEADER.unpack_from(data, at)
                if length < _HEADER.size:
                    break
                yield kind, flags, sequence, data[at + _HEADER.size : at + length]
                at += (length + 3) & ~3


def _error(body: bytes, flags: int) -> OSError | None:
    """The error in an NLMSG_ERROR message, None for an acknowledgement."""
    code = -struct.unpack_from("=i", body)[0]
    if not code:
        return None
    words = ""
    if flags & NLM_F_ACK_TLVS:  # with NETLINK_CAP_ACK only the header of the request stands before them
        tail = body[4 + _HEADER.size :] if flags & NLM_F_CAPPED else b""
        words = attributes(tail).get(NLMSGERR_ATTR_MSG, b"").rstrip(b"\0").decode(errors="replace")
    return OSError(code, f"{os.strerror(code)}: {words}" if words else os.strerror(code))


def link_dump_body() -> bytes:
    return _IFINFOMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0)


def address_dump_body(family: int = socket.AF_UNSPEC) -> bytes:
    return _IFADDRMSG.pack(family, 0, 0, 0, 0)


def route_dump_body(family: int = socket.AF_INET) -> bytes:
    return _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)


def split_link(payload: bytes) -> tuple[int, int, Attributes]:
    """Index, flags and attributes of an RTM_NEWLINK payload."""
    _, _, index, flags, _ = _IFINFOMSG.unpack_from(payload)
    return index, flags, attributes(payload[_IFINFOMSG.size :])


def split_address(payload: bytes) -> tuple[int, int, int, Attributes]:
    """Family, prefix length, link index and attributes of an RTM_NEWADDR payload."""
    family, prefix, _, _, index = _IFADDRMSG.unpack_from(payload)
    return family, prefix, index, attributes(payload[_IFADDRMSG.size :])


def split_route(payload: bytes) -> tuple[int, int, int, Attributes]:
    """Family, prefix length, table and attributes of an RTM_NEWROUTE payload."""
    family, prefix, _, _, table, _, _, _, _ = _RTMSG.unpack_from(payload)
    found = attributes(payload[_RTMSG.size :])
    if RTA_TABLE in found:
        table = struct.unpack("=I", found[RTA_TABLE])[0]
    return family, prefix, table, found
