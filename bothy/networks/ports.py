"""Host ports: which are asked for, which are free, who has them.

A published port is reserved by a listening socket (bound, for udp) that the daemon holds and never reads: the kernel then tells
everyone else that the port is taken, and tells us if it was. Traffic does not reach that socket: it is rewritten before. Where
somebody has taken our rules away it does, until they are back; then `refuse_waiting` ends what would wait for ever.
"""

from __future__ import annotations

import errno
import os
import random
import re
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from ipaddress import ip_address

from bothy.errors import Conflict, Forbidden, Invalid, Unavailable, Unsupported
from bothy.networks.model import PortRequest, Published

FREE_PORTS = range(49153, 65536)
ANY, ANY6 = "0.0.0.0", "::"
_RESET = struct.pack("ii", 1, 0)  # close(2) resets the connection (SO_LINGER, socket(7))
_KINDS = {
    "tcp": (socket.SOCK_STREAM, socket.IPPROTO_TCP),
    "udp": (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
    "sctp": (socket.SOCK_STREAM, socket.IPPROTO_SCTP),
}


def host_ports(text: str) -> range:
    """The host ports that `8080` or `8000-8010` allow; empty for any. Raises Invalid."""
    match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", text or "0")
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (-1, -1)
    if not 0 <= first <= last <= 65535 or (not first and last):
        raise Invalid(f"{text!r} is not a host port", hint="give a number from 1 to 65535, or a range such as 8000-8010")
    return range(first, last + 1) if first else range(0)


def host_address(text: str) -> str:
    """The host address to publish on; empty is every one. Raises Invalid, and Unsupported for IPv6's loopback."""
    try:
        address = ip_address(text.strip("[]") or ANY)
    except ValueError:
        raise Invalid(f"{text!r} is not an IP address", hint="publish as ADDRESS:HOST_PORT:PORT, e.g. 127.0.0.1:8080:80") from None
    if address.version == 6 and address.is_loopback:
        raise Unsupported(
            f"publishing on {address} is not supported", hint="publish on 127.0.0.1: what goes to ::1 can not be rewritten"
        )
    return str(address)


def addresses_for(request: PortRequest, *, ipv6: bool) -> tuple[str, ...]:
    """The host addresses that a port is to be published on. Raises Invalid for one of IPv6 where the workload has none."""
    if ipv6 and not request.host_ip:
        return (ANY, ANY6)
    address = host_address(request.host_ip)
    if ":" in address and not ipv6:
        raise Invalid(
            f"port {request.container_port}/{request.protocol} can not be published on {address}: the workload has no IPv6 address",
            hint="put it on a network that was made with --ipv6, or publish on an IPv4 address",
        )
    return (address,)


class Ports:
    """The host ports of one engine. Raises as told; a failed `reserve` leaves nothing reserved that was not."""

    def __init__(self) -> None:
        self._held: dict[Published, tuple[str, socket.socket | None]] = {}
        self._of: dict[str, list[Published]] = {}
        self._next = random.choice(FREE_PORTS)

    def of(self, workload: str) -> list[Published]:
        """What a workload has published, in the order it asked for."""
        return list(self._of.get(workload, ()))

    def holders(self) -> dict[Published, tuple[str, bool]]:
        """Every published port with the workload that it is of, and whether it is held here, so that nobody else can have it."""
        return {port: (workload, holder is not None) for port, (workload, holder) in self._held.items()}

    def refuse_waiting(self) -> None:
        """Reset the connections that have come to the holders themselves: their clients may try again."""
        for _, holder in self._held.values():
            if holder is None or not holder.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                continue
            with suppress(OSError):  # EAGAIN: there are no more
                while True:
                    waiting, _ = holder.accept()
                    waiting.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    waiting.close()

    def reserve(self, workload: str, requests: Sequence[PortRequest], *, ipv6: bool = False) -> list[Published]:
        """Reserve all of them for `workload`, beside what it has, or none. Returns them; with `ipv6` those of any address twice.

        Raises Conflict for a port that is taken (by whom, where that can be told), Invalid, Forbidden, Unsupported.
        """
        made: list[Published] = []
        with ExitStack() as undo:
            undo.callback(self.release, workload, made)
            for request in requests:
                made += self._reserve(workload, request, ipv6=ipv6)
            undo.pop_all()
        return made

    def adopt(self, workload: str, published: Sequence[Published]) -> list[Published]:
        """Take over ports that a workload has had since before this daemon. Returns those that someone else has bound since."""
        lost = []
        for port in published:
            if port in self._held:
                continue
            try:
                holder = _bind(port)
            except OSError:
                holder = None
                lost.append(port)
            self._note(workload, port, holder)
        return lost

    def release(self, workload: str, ports: Sequence[Published] | None = None) -> list[Published]:
        """Free what a workload has, or some of it; returns it."""
        held = self._of.pop(workload, [])
        gone = [port for port in held if ports is None or port in ports]
        if len(gone) < len(held):
            self._of[workload] = [port for port in held if port not in gone]
        for port in gone:
            _, holder = self._held.pop(port)
            if holder:
                holder.close()
        return gone

    def close(self) -> None:
        """Free everything."""
        for workload in list(self._of):
            self.release(workload)

    def _note(self, workload: str, port: Published, holder: socket.socket | None) -> None:
        self._held[port] = (workload, holder)
        self._of.setdefault(workload, []).append(port)

    def _reserve(self, workload: str, request: PortRequest, *, ipv6: bool) -> list[Published]:
        if request.protocol not in _KINDS:
            raise Invalid(f"unknown protocol {request.protocol!r}", hint="tcp, udp or sctp")
        if not 0 < request.container_port < 65536:
            raise Invalid(f"{request.container_port} is not a port")
        addresses, wanted = addresses_for(request, ipv6=ipv6), host_ports(request.host_port)
        for number in wanted or self._free_ports():
            ports = [Published(request.container_port, request.protocol, address, number) for address in addresses]
            refusal = self._try(workload, ports)
            if refusal is None:
                return ports
            if refusal.errno != errno.EADDRINUSE and not (refusal.errno == errno.EACCES and len(wanted) != 1):
                break
        if not wanted and refusal and refusal.errno == errno.EADDRINUSE:
            raise Unavailable(
                f"no free host port from {FREE_PORTS[0]} to {FREE_PORTS[-1]} for {request.container_port}/{request.protocol}"
            )
        raise self._refused(ports, wanted, refusal)

    def _try(self, workload: str, ports: list[Published]) -> OSError | None:
        """Reserve one port on several addresses, all or none; why not, if not."""
        made: list[Published] = []
        for port in ports:
            try:
                if self._holder(port):
                    raise OSError(errno.EADDRINUSE, "taken")
                self._note(workload, port, _bind(port))
            except OSError as exc:
                self.release(workload, made)
                return exc
            made.append(port)
        return None

    def _free_ports(self) -> Iterator[int]:
        """Every port of the free range once, from where the last search ended."""
        for _ in FREE_PORTS:
            number = self._next
            self._next = number + 1 if number + 1 in FREE_PORTS else FREE_PORTS[0]
            yield number

    def _holder(self, port: Published) -> str:
        """The workload of ours that has the port, on that address or on one that includes it."""
        any_ = ANY6 if port.version == 6 else ANY
        for held, (workload, _) in self._held.items():
            same = (held.host_port, held.protocol, held.version) == (port.host_port, port.protocol, port.version)
            if same and (held.host_ip == port.host_ip or any_ in (held.host_ip, port.host_ip)):
                return workload
        return ""

    def _refused(self, ports: list[Published], wanted: range, refusal: OSError | None) -> Exception:
        port = next((port for port in ports if self._holder(port)), ports[0])
        where = f"port {port.host_port}/{port.protocol} on {port.host_ip}"
        if refusal is None or refusal.errno == errno.EADDRINUSE:
            if len(wanted) > 1:
                return Conflict(f"every port of {wanted[0]}-{wanted[-1]}/{port.protocol} on {port.host_ip} is already allocated")
            holder = self._holder(port)
            whose = f"workload {holder[:12]}" if holder else program_at(port)
            return Conflict(
                f"{where} is already allocated" + (f" by {whose}" if whose else ""), hint="publish on another host port"
            )
        if refusal.errno == errno.EADDRNOTAVAIL:
            return Invalid(
                f"{port.host_ip} is not an address of this host", hint=f"publish on {ANY}, 127.0.0.1, or an address of this host"
            )
        return Forbidden(f"{where} can not be bound: {refusal.strerror}", errno=refusal.errno or 0)


def _bind(port: Published) -> socket.socket | None:
    """A socket that holds the port; None where the kernel has no such protocol. OSError if it is taken."""
    kind, protocol = _KINDS[port.protocol]
    family = socket.AF_INET6 if port.version == 6 else socket.AF_INET
    try:
        holder = socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol)
    except OSError as exc:
        if exc.errno in (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT, errno.EAFNOSUPPORT):
            return None
        raise
    try:
        if kind == socket.SOCK_STREAM:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections in TIME_WAIT do not count
        if family == socket.AF_INET6:
            holder.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        holder.bind((port.host_ip, port.host_port))
        # not for IPv6: what goes to ::1 is not rewritten, and has to be refused, not accepted by a socket that nobody reads
        if kind == socket.SOCK_STREAM and family == socket.AF_INET:
            holder.setblocking(False)
            holder.listen(1)  # without it another socket with SO_REUSEADDR could still be bound beside this one
    except BaseException:
        holder.close()
        raise
    return holder


def program_at(port: Published) -> str:
    """`nginx (pid 123)`: who has the port bound, as far as /proc tells; empty if it does not."""
    inodes = set()
    for table in (port.protocol, port.protocol + "6"):
        try:
            with open(f"/proc/self/net/{table}", encoding="ascii") as lines:
                next(lines)
                rows = [line.split() for line in lines]
        except (OSError, StopIteration):
            continue
        listening = ("0A",) if port.protocol == "tcp" else ("07",)
        inodes |= {row[9] for row in rows if row[3] in listening and int(row[1].rpartition(":")[2], 16) == port.host_port}
    targets = {f"socket:[{inode}]" for inode in inodes}
    for pid in filter(str.isdigit, os.listdir("/proc")) if targets else ():
        try:
            fds = os.listdir(f"/proc/{pid}/fd")
            if any(os.readlink(f"/proc/{pid}/fd/{fd}") in targets for fd in fds):
                with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as comm:
                    return f"{comm.read().strip()} (pid {pid})"
        except OSError:
            continue
    return ""
