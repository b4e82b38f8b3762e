"""Forget connections: the kernel decides about rewriting when it sees the first packet of a flow, and remembers.

A udp client that keeps sending from one port is one flow for as long as it goes on. So when a udp port is published, the flows
that went by it unrewritten are forgotten, and when it is no longer, those that still go to the old workload.

Source: linux/netfilter/nfnetlink_conntrack.h. All numbers in its attributes are big-endian.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Collection, Iterator

from bothy.linux import netlink

NETLINK_NETFILTER = 12
IPCTNL_MSG_CT_GET, IPCTNL_MSG_CT_DELETE = 1 << 8 | 1, 1 << 8 | 2
CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, CTA_ID = 1, 2, 12
CTA_TUPLE_IP, CTA_TUPLE_PROTO = 1, 2
CTA_IP_V4_SRC, CTA_IP_V6_SRC = 1, 3
CTA_PROTO_NUM, CTA_PROTO_SRC_PORT, CTA_PROTO_DST_PORT = 1, 2, 3
_NFGENMSG = struct.Struct("=BBH")  # family, version, resource
_HEADER = struct.Struct("=IHHII")
_UDP = bytes([socket.IPPROTO_UDP])


def forget_udp(ports: Collection[int], addresses: Collection[str] = ()) -> int:
    """Forget the udp flows to one of these (host) ports, or that are answered from one of these addresses.

    Returns how many. Raises OSError; a kernel without connection tracking has none to forget.
    """
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    try:
        kernel = socket.socket(socket.AF_NETLINK, kind, NETLINK_NETFILTER)
    except OSError as exc:
        if exc.errno == errno.EPROTONOSUPPORT:
            return 0
        raise
    wanted = {struct.pack(">H", port) for port in ports}
    sources = {socket.inet_pton(_family(address), address) for address in addresses}
    forgotten = 0
    with kernel:
        for family in sorted({_family(address) for address in addresses} or {socket.AF_INET}):
            head = _NFGENMSG.pack(family, 0, 0)
            for found in [tuples for tuples in _flows(kernel, head) if _concerns(tuples, wanted, sources)]:
                body = head + netlink.nested(CTA_TUPLE_ORIG, found[CTA_TUPLE_ORIG])
                if identity := found.get(CTA_ID):
                    body += netlink.attribute(CTA_ID, identity)
                _request(kernel, IPCTNL_MSG_CT_DELETE, netlink.NLM_F_ACK, body)
                kernel.recv(1 << 16)  # ENOENT is as good: it has ended by itself
                forgotten += 1
    return forgotten


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _concerns(found: netlink.Attributes, ports: set[bytes], sources: set[bytes]) -> bool:
    original = netlink.attributes(found.get(CTA_TUPLE_ORIG, b""))
    protocol = netlink.attributes(original.get(CTA_TUPLE_PROTO, b""))
    if protocol.get(CTA_PROTO_NUM) != _UDP:
        return False
    reply = netlink.attributes(netlink.attributes(found.get(CTA_TUPLE_REPLY, b"")).get(CTA_TUPLE_IP, b""))
    return protocol.get(CTA_PROTO_DST_PORT) in ports or (reply.get(CTA_IP_V4_SRC) or reply.get(CTA_IP_V6_SRC)) in sources


def _flows(kernel: socket.socket, head: bytes) -> Iterator[netlink.Attributes]:
    """The attributes of every flow of the family that `head` names."""
    _request(kernel, IPCTNL_MSG_CT_GET, netlink.NLM_F_DUMP, head)
    found: list[netlink.Attributes] = []
    while True:
        data = kernel.recv(1 << 17)
        at = 0
        while at + _HEADER.size <= len(data):
            length, kind, _, _, _ = _HEADER.unpack_from(data, at)
            if kind in (netlink.NLMSG_DONE, netlink.NLMSG_ERROR) or length < _HEADER.size:
                return iter(found)
            found.append(netlink.attributes(data[at + _HEADER.size + len(head) : at + length]))
            at += (length + 3) & ~3


def _request(kernel: socket.socket, kind: int, flags: int, body: bytes) -> None:
    header = _HEADER.pack(_HEADER.size + len(body), kind, flags | netlink.NLM_F_REQUEST, 1, 0)
    kernel.send(header + body)
