"""Starting a machine: a QEMU that goes on from a template, and the first words to it and to the agent in its guest.

    keeper ── fork ─▶ cgroup, jail with the shares, no rights, guard ── exec ─▶ QEMU, waiting for a state
      ├─ monitor: capabilities, ignore the memory, load the state; then the guest runs
      └─ agent:   boot {…}                                             both written before QEMU is up, so nothing waits

QEMU ends with the keeper (PR_SET_PDEATHSIG). What it works on is inherited, open: it finds next to nothing by name.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, NoReturn

from bothy.errors import NotFound, StageError, failure_of
from bothy.jsonable import PLAIN
from bothy.linux import channel, netlink, secretfiles, syscalls
from bothy.linux.links import Interface, Route
from bothy.machines import cards, command, disks, guard, jail, qmp, rootdisk, saved, wire
from bothy.machines.cards import Cards
from bothy.machines.command import Backing
from bothy.machines.guard import Guard
from bothy.machines.model import Disk, MachinePlan
from bothy.machines.saved import Template
from bothy.oci.runtime import Mount, Process, User

SEED = 64  # bytes of randomness for each guest
_MTU = 1500  # what the card has from its template
_POOL_INFO = struct.Struct("=ii")  # struct rand_pool_info of random(4), without the bytes
_NLMSGHDR = struct.Struct("=IHHII")
_LISTENING = b"\0"


class Ends(NamedTuple):
    """The descriptors that QEMU inherits."""

    agent: int
    monitor: int
    words: int
    state: int
    root: int
    scratch: int


@dataclass(frozen=True)
class Birth:
    """What a QEMU is made of; `jailed` is a folder to mount its root over. The rest as `launch` has it."""

    plan: MachinePlan
    template: Template
    jailed: str
    ends: Ends
    cards: Cards
    enter: Callable[[], None]
    cgroup: int
    fresh: bool


@dataclass
class Clone:
    """A running QEMU, a child of the caller. The sockets and `words` (what it says on stderr) are the caller's, non-blocking.

    `fresh`: its scratch disk was made now. `mounted`: its guest has the image's disk mounted (see `rootdisk`). `nic`: the guest's
    number of its first network card. `memory`: all that the machine has, in bytes; `own`: what of it programs can not have.
    """

    pid: int
    agent: socket.socket
    monitor: socket.socket
    words: int
    guard: Guard
    fresh: bool
    mounted: bool
    nic: int
    memory: int
    own: int
    cards: Cards

    def close(self) -> None:
        self.agent.close()
        self.monitor.close()
        self.guard.close()
        os.close(self.words)

    def release(self) -> None:
        """Let go of the taps as well, which takes a moment: when nobody waits. At the latest the end of the process does it."""
        self.cards.close()


def launch(
    plan: MachinePlan, folder: str, enter: Callable[[], None] = lambda: None, *, cgroup: int = -1, ahead: bool = False
) -> Clone:
    """Start QEMU for a machine; returns when it has been exec'ed and its first orders are written (not the boot message).

    `folder` is the keeper's. It is born in `cgroup` (a descriptor of the folder of one of v2, -1: in our own), and calls `enter`,
    to join those of v1. `ahead`: its first card will lead somewhere soon. Raises StageError: nothing is left but perhaps the
    scratch disk, which belongs to the machine.
    """
    try:
        template = saved.read(plan.template)
    except (NotFound, ValueError) as exc:
        raise StageError("template", str(exc), path=plan.template) from exc
    fresh = _make_scratch(plan)
    with contextlib.ExitStack() as mine, contextlib.ExitStack() as its:
        try:
            (agent, monitor, words), ends = _connect(plan, mine, its)
            ram = os.open(f"{plan.template}/ram", os.O_RDONLY | os.O_CLOEXEC)
            mine.callback(os.close, ram)
            mounted = bool(template.disk) and rootdisk.fingerprint(ends.root) == template.disk
            ours = cards.make(plan.attachments, template.hardware.cards, ahead=ahead)
            mine.callback(ours.close)
            pid, listener = _spawn(Birth(plan, template, f"{folder}/jail", ends, ours, enter, cgroup, fresh=fresh))
            monitor.sendall(_orders(ends.state))
        except OSError as exc:
            raise StageError("machine", exc.strerror or str(exc), errno=exc.errno or 0, path=str(exc.filename or "")) from exc
        mine.pop_all()
    memory = template.hardware.memory << 20
    return Clone(
        pid, agent, monitor, words, Guard(listener, ram), fresh, mounted, template.nic, memory, memory - template.free, ours
    )


Mine = tuple[socket.socket, socket.socket, int]


def _connect(plan: MachinePlan, mine: contextlib.ExitStack, its: contextlib.ExitStack) -> tuple[Mine, Ends]:
    """Both ends of everything between keeper and QEMU: agent, monitor, stderr. `mine` and `its` close them."""
    agent, its_agent = socket.socketpair()
    monitor, its_monitor = socket.socketpair()
    for sock in (agent, monitor):
        mine.callback(sock.close)
        sock.setblocking(False)
    for sock in (its_agent, its_monitor):
        its.callback(sock.close)
    words, its_words = os.pipe2(os.O_CLOEXEC)
    mine.callback(os.close, words)
    its.callback(os.close, its_words)
    os.set_blocking(words, False)

    def lend(fd: int) -> int:
        its.callback(os.close, fd)
        return fd

    ends = Ends(
        agent=its_agent.fileno(),
        monitor=its_monitor.fileno(),
        words=its_words,
        state=lend(os.open(f"{plan.template}/state", os.O_RDONLY | os.O_CLOEXEC)),
        root=lend(_open_disk(plan.root)),
        scratch=lend(_open_disk(plan.scratch)),
    )
    return (agent, monitor, words), ends


def boot_message(plan: MachinePlan, clone: Clone, *, stdin: bool) -> dict[str, Any]:
    """What the agent needs to make a clone this machine, and to run its program (see `bothy.guest.late`)."""
    spec = plan.spec
    # The first card is set up in the guest already, as eth0; the others are hidden.
    first = plan.attachments[0].interface if plan.attachments and plan.attachments[0].interface.name == "eth0" else None
    return {
        "op": "boot",
        "time": time.time_ns(),
        "entropy": (_POOL_INFO.pack(SEED * 8, SEED) + os.urandom(SEED)).hex(),
        "hostname": spec.hostname,
        "network": [part.hex() for part in _network(first, clone.nic)] if first else [],
        "cards": [[n, card_order(a.interface)] for n, a in enumerate(plan.attachments) if n or not first],
        "fresh": clone.fresh,
        "mounted": clone.mounted,
        "readonly": spec.root.readonly,
        "files": {"machine-id": f"{plan.id[:32]:0>32}\n"} | {os.path.basename(path): text for path, text in plan.files.items()},
        "mounts": [PLAIN.to_data(mount) for mount in spec.mounts if mount.type == "tmpfs" and not _is_there(mount)],
        "shares": [{"destination": share.destination, "readonly": share.readonly and share.deep} for share in plan.shares],
        "secrets": _secrets(plan),
        "sysctl": spec.linux.sysctl | ({"kernel.domainname": spec.domainname} if spec.domainname else {}),
        "pids": spec.linux.resources.pids.limit if spec.linux.resources.pids else 0,
        **order(spec.process, stdin=stdin),
        "ephemeral": plan.ephemeral,
        "visit": plan.visit,
    }


def _secrets(plan: MachinePlan) -> list[dict[str, Any]]:
    """Read now, sent once: they are in no plan and on no disk of the machine. Raises StageError."""
    try:
        return [
            {"target": s.target, "uid": s.uid, "gid": s.gid, "mode": s.mode, "data": secretfiles.read(s.source).hex()}
            for s in plan.secrets
        ]
    except OSError as exc:
        raise StageError("secret", exc.strerror or str(exc), errno=exc.errno or 0) from exc


def rehearsal(plan: MachinePlan, clone: Clone) -> dict[str, Any]:
    """What the agent of a machine that waits goes through once: as `boot_message`, with a program that only exits."""
    trial = Interface("eth0", "02:00:00:00:00:01", ["169.254.99.1/30"], [Route("default", "169.254.99.2")])
    undo = netlink.address_request(netlink.RTM_DELADDR, clone.nic, trial.addresses[0])
    process = replace(plan.spec.process, args=[wire.REHEARSAL], cwd="/", user=User(), terminal=False, console_size=None)
    return {
        "time": time.time_ns(),
        "mounted": clone.mounted,
        "entropy": (_POOL_INFO.pack(0, SEED) + os.urandom(SEED)).hex(),
        "network": [*(part.hex() for part in _network(trial, clone.nic)), _messages([undo]).hex()],
        **order(process, stdin=False),
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


def card_order(interface: Interface) -> dict[str, Any]:
    """What the agent needs to set up a card (see `bothy.guest.cards.plug`)."""
    routes = [(route.destination, route.gateway) for route in interface.routes]
    return {"name": interface.name, "mac": interface.mac, "addresses": interface.addresses, "routes": routes, "mtu": interface.mtu}


def _network(interface: Interface, index: int) -> list[bytes]:
    """The rtnetlink messages that configure the card `index`, ready to be sent: of each part only the last one is acknowledged.

    One part; two for a card that gets IPv6, which is to be allowed after the first one: its address on the link is made of the
    hardware address.
    """
    mtu = 0 if interface.mtu == _MTU else interface.mtu
    requests = [netlink.link_request(netlink.RTM_NEWLINK, index=index, mac=interface.mac, mtu=mtu)]
    requests += [netlink.address_request(netlink.RTM_NEWADDR, index, cidr) for cidr in interface.addresses]
    requests += [netlink.route_request(netlink.RTM_NEWROUTE, index, r.destination, r.gateway) for r in interface.routes]
    if any(":" in address for address in interface.addresses):
        return [_messages(requests[:1]), _messages(requests[1:])]
    return [_messages(requests)]


def _messages(requests: list[netlink.Request]) -> bytes:
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


def _spawn(birth: Birth) -> tuple[int, int]:
    """Fork and exec: the pid, and its guard's listener. Raises StageError for what fails before the exec; it is reaped then."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(birth.jailed)  # not its parents: who has removed the folder does not want the machine any more
    status, its_status = socket.socketpair()
    parent = os.getpid()
    pid = os.fork() if birth.cgroup < 0 else syscalls.fork_into_cgroup(birth.cgroup)
    if not pid:
        try:
            _become_qemu(birth, parent, its_status)
        except BaseException as exc:
            its_status.sendall(json.dumps(failure_of(exc, "machine")).encode())
        os.kill(os.getpid(), signal.SIGKILL)
    its_status.close()
    with status:
        said, listeners, _, _ = socket.recv_fds(status, 65536, 1)
        while piece := status.recv(65536):
            said += piece
    failure = said.removeprefix(_LISTENING)
    if failure or not listeners:
        os.waitpid(pid, 0)
        channel.close_all(listeners)
        told = json.loads(failure or b'{"stage":"machine","message":"QEMU did not start","errno":0,"path":""}')
        raise StageError(told["stage"], told["message"], errno=told["errno"], path=told["path"])
    return pid, listeners[0]


def _become_qemu(birth: Birth, parent: int, status: socket.socket) -> NoReturn:
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)
    birth.enter()
    plan, template, ends = birth.plan, birth.template, birth.ends
    # The kernel refuses at once what is more than the host has, though a guest touches little of it.
    thin = template.hardware.memory << 20 > os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    jail.enter(birth.jailed, birth.cards.apart, plan.shares, shows_overcommit=thin)
    own = command.disk("/dev/fdset/2", readonly=plan.scratch.readonly, image_format=plan.scratch.format)
    backing = Backing(
        ram=guard.PATH,
        agent=ends.agent,
        monitor=ends.monitor,
        taps=tuple(birth.cards.taps),
        files=(ends.root, ends.scratch),
        root=command.disk("/dev/fdset/1", readonly=plan.root.readonly, image_format=plan.root.format),
        scratch=own if birth.fresh else command.nothing(disks.SIZE),
        used=command.nothing(disks.SIZE) if birth.fresh else own,
        exports=jail.EXPORTS,
        sandbox=False,
        reserve=not thin,
    )
    arguments = command.argv(template.hardware, backing, template.qemu)
    os.dup2(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC), 0, inheritable=True)
    os.dup2(ends.words, 1, inheritable=True)
    os.dup2(ends.words, 2, inheritable=True)
    for fd in (*ends, *birth.cards.taps):
        os.set_inheritable(fd, True)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if template.hardware.accelerator == "tcg":
        # Its buffer of translated code would come in huge pages, half of them empty: 4 MB a machine, and measured no faster for it.
        syscalls.prctl(syscalls.PR_SET_THP_DISABLE, 1)
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    jail.drop_privileges(plan.id, has_shares=bool(plan.shares))
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of ids clears it
    listener = guard.install()
    socket.send_fds(status, [_LISTENING], [listener])
    os.execve(template.qemu, arguments, {"PATH": "/usr/bin:/bin"})


def _open_disk(disk: Disk) -> int:
    return os.open(disk.path, (os.O_RDONLY if disk.readonly else os.O_RDWR) | os.O_CLOEXEC | os.O_NOFOLLOW)
