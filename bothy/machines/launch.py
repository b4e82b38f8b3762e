"""Starting a machine: a QEMU that goes on from a template, and the first words to it and to the agent in its guest.

    keeper ── fork ─▶ own mount namespace, shares, cgroup ── exec ─▶ QEMU, waiting for a state
      ├─ monitor: capabilities, ignore the memory, load the state; then the guest runs
      └─ agent:   boot {…}                                             both written before QEMU is up, so nothing waits

QEMU ends with the keeper (PR_SET_PDEATHSIG). Its descriptors are inherited: it opens no sockets, taps or states by name.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from bothy.errors import NotFound, StageError, failure_of
from bothy.jsonable import PLAIN
from bothy.linux import links, mounts, netlink, syscalls
from bothy.linux.links import Interface
from bothy.machines import command, disks, qmp, saved, shares
from bothy.machines.command import Backing
from bothy.machines.model import Disk, MachinePlan
from bothy.machines.saved import Template
from bothy.oci.runtime import Mount, Process

SEED = 64  # bytes of randomness for each guest
_MTU = 1500  # what the card has from its template
_POOL_INFO = struct.Struct("=ii")  # struct rand_pool_info of random(4), without the bytes
_NLMSGHDR = struct.Struct("=IHHII")
_NO_BRIDGE = "bothy-none%d"


@dataclass
class Clone:
    """A running QEMU, a child of the caller. The sockets and `words` (what it says on stderr) are the caller's, non-blocking.

    `fresh`: its scratch disk was made now. `nic`: the guest's number of its network card.
    """

    pid: int
    agent: socket.socket
    monitor: socket.socket
    words: int
    fresh: bool
    nic: int

    def close(self) -> None:
        self.agent.close()
        self.monitor.close()
        if self.words >= 0:
            os.close(self.words)
            self.words = -1


def launch(plan: MachinePlan, folder: str, enter: Callable[[], None] = lambda: None) -> Clone:
    """Start QEMU for a machine; returns when it has been exec'ed and its first orders are written (not the boot message).

    `folder` is the keeper's. `enter` is called in the child, to join cgroups. Raises StageError: nothing is left but perhaps the
    scratch disk, which belongs to the machine.
    """
    try:
        template = saved.read(plan.template)
    except (NotFound, ValueError) as exc:
        raise StageError("template", str(exc), path=plan.template) from exc
    fresh = _make_scratch(plan)
    ends: list[int] = []
    agent, its_agent = socket.socketpair()
    monitor, its_monitor = socket.socketpair()
    ends += [its_agent.detach(), its_monitor.detach()]
    words = -1
    try:
        words, its_words = os.pipe2(os.O_CLOEXEC)
        ends.append(its_words)
        ends.append(_open_tap(plan))
        ends.append(os.open(f"{plan.template}/state", os.O_RDONLY | os.O_CLOEXEC))
        pid = _spawn(plan, template, folder, ends, enter)
        clone = Clone(pid, agent, monitor, words, fresh, template.nic)
        monitor.sendall(_orders(ends[4]))
    except BaseException as exc:
        agent.close()
        monitor.close()
        if words >= 0:
            os.close(words)
        if isinstance(exc, OSError):
            raise StageError("machine", exc.strerror or str(exc), errno=exc.errno or 0, path=str(exc.filename or "")) from exc
        raise
    finally:
        for fd in ends:
            os.close(fd)
    agent.setblocking(False)
    monitor.setblocking(False)
    os.set_blocking(words, False)
    return clone


def boot_message(plan: MachinePlan, clone: Clone, *, stdin: bool) -> dict[str, Any]:
    """What the agent needs to make a clone this machine, and to run its program (see `bothy.guest.late`)."""
    spec = plan.spec
    return {
        "op": "boot",
        "time": time.time_ns(),
        "entropy": (_POOL_INFO.pack(SEED * 8, SEED) + os.urandom(SEED)).hex(),
        "hostname": spec.hostname,
        "network": _network(plan.interface, clone.nic).hex() if plan.interface else "",
        "ipv6": plan.interface is not None and any(":" in address for address in plan.interface.addresses),
        "fresh": clone.fresh,
        "readonly": spec.root.readonly,
        "files": {"machine-id": f"{plan.id[:32]:0>32}\n"} | {os.path.basename(path): text for path, text in plan.files.items()},
        "mounts": [PLAIN.to_data(mount) for mount in spec.mounts if mount.type == "tmpfs" and not _is_there(mount)],
        "shares": [{"destination": share.destination, "readonly": share.readonly} for share in plan.shares],
        "sysctl": spec.linux.sysctl,
        **order(spec.process, stdin=stdin),
        "ephemeral": plan.ephemeral,
    }


def order(process: Process, *, stdin: bool) -> dict[str, Any]:
    """What the agent needs to run a program (see `bothy.guest.programs.start`)."""
    size = process.console_size
    return {
        "process": PLAIN.dumps(process),
        "terminal": process.terminal,
        "size": [size.height, size.width] if size else None,
        "stdin": stdin,
    }


def _network(interface: Interface, index: int) -> bytes:
    """The rtnetlink messages that configure the card `index`, ready to be sent: only the last one is acknowledged."""
    mtu = 0 if interface.mtu == _MTU else interface.mtu
    requests = [netlink.link_request(netlink.RTM_NEWLINK, index=index, mac=interface.mac, mtu=mtu)]
    requests += [netlink.address_request(netlink.RTM_NEWADDR, index, cidr) for cidr in interface.addresses]
    requests += [netlink.route_request(netlink.RTM_NEWROUTE, index, r.destination, r.gateway) for r in interface.routes]
    data = b""
    for number, (kind, flags, body) in enumerate(requests, 1):
        flags |= netlink.NLM_F_REQUEST | (netlink.NLM_F_ACK if number == len(requests) else 0)
        data += _NLMSGHDR.pack(_NLMSGHDR.size + len(body), kind, flags, number, 0) + body + bytes(-len(body) % 4)
    return data


def _is_there(mount: Mount) -> bool:
    """Whether the guest has it from its template: /dev, and /dev/shm of the default size."""
    return mount.destination == "/dev" or (mount.destination == "/dev/shm" and "size=67108864" in mount.options)


def _make_scratch(plan: MachinePlan) -> bool:
    """The machine's own disk, if it is not there yet. True if it was made now."""
    try:
        disks.copy(f"{plan.template}/scratch", plan.scratch.path)
        return True
    except FileExistsError:
        return False
    except OSError as exc:
        raise StageError("disk", exc.strerror or str(exc), errno=exc.errno or 0, path=plan.scratch.path) from exc


def _open_tap(plan: MachinePlan) -> int:
    """The machine's tap on its bridge; one that leads nowhere for a machine without network, whose guest has no card to see."""
    try:
        return links.open_tap(plan.tap, plan.bridge) if plan.tap else links.open_tap(_NO_BRIDGE)
    except OSError as exc:
        raise StageError("network", exc.strerror or str(exc), errno=exc.errno or 0, path=plan.tap) from exc


def _orders(state: int) -> bytes:
    """What QEMU is told at birth."""
    return b"".join(
        [
            qmp.command("qmp_capabilities"),
            qmp.command("migrate-set-capabilities", {"capabilities": [saved.CAPABILITY]}),
            qmp.command("migrate-incoming", {"uri": f"fd:{state}"}),
        ]
    )


ORDERS = 3


def _spawn(plan: MachinePlan, template: Template, folder: str, ends: list[int], enter: Callable[[], None]) -> int:
    """Fork and exec. Raises StageError for what fails before the exec; the child is reaped then."""
    status, its_status = os.pipe2(os.O_CLOEXEC)
    parent = os.getpid()
    pid = os.fork()
    if not pid:
        try:
            _become_qemu(plan, template, folder, ends, enter, parent)
        except BaseException as exc:
            os.write(its_status, json.dumps(failure_of(exc, "machine")).encode())
        os.kill(os.getpid(), signal.SIGKILL)
    os.close(its_status)
    with open(status, "rb", buffering=0) as answer:
        failure = answer.readall()
    if failure:
        os.waitpid(pid, 0)
        told = json.loads(failure)
        raise StageError(told["stage"], told["message"], errno=told["errno"], path=told["path"])
    return pid


def _become_qemu(
    plan: MachinePlan, template: Template, folder: str, ends: list[int], enter: Callable[[], None], parent: int
) -> NoReturn:
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)
    enter()
    agent, monitor, words, tap, _ = ends
    exports = f"{folder}/exports"
    os.makedirs(exports, exist_ok=True)
    syscalls.unshare(syscalls.CLONE_NEWNS)
    mounts.make_private()
    shares.export(exports, plan.shares)
    backing = Backing(
        ram=f"{plan.template}/ram", agent=agent, monitor=monitor, tap=tap, exports=exports, root=_blockdev(plan.root),
        scratch=_blockdev(plan.scratch),
    )  # fmt: skip
    arguments = command.argv(template.hardware, backing, template.qemu)
    os.dup2(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC), 0, inheritable=True)
    os.dup2(words, 1, inheritable=True)
    os.dup2(words, 2, inheritable=True)
    for fd in ends:
        os.set_inheritable(fd, True)
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    os.execve(template.qemu, arguments, {"PATH": "/usr/bin:/bin"})


def _blockdev(disk: Disk) -> dict[str, Any]:
    return command.disk(disk.path, readonly=disk.readonly, image_format=disk.format)
