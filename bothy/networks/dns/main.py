"""bothy-names: the DNS server of an engine's networks, one process, one thread, standard library only.

    bothyd ══ SEQPACKET <run>/names.sock ══ bothy-names ══ upstream servers
       └ files <run>/names/<workload> ─ inotify ─┘ └─ sockets of the networks, made by bothyd, which keeps duplicates

    bothyd → server                                           server → bothyd
    serve {network} + sockets    (another look at one)        event sockets {network} + duplicates: for every network
    drop {network}                                            ok {version, pid}, the answer to `take`
    take {}                      (whoever adopts it asks)
    end {}

`network` is {id, name, gateways, subnets, internal}. Bothyd may die and come back: answers go on meanwhile. Killed, it is started
again by bothyd with the same sockets, in which what was asked meanwhile waits. Without bothyd and workloads it ends by itself.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys

from bothy import __version__, quickjson
from bothy.linux import capabilities, channel, inotify, syscalls
from bothy.networks.dns import FOLDER, TITLE
from bothy.networks.dns.loop import IN, Loop, Socket
from bothy.networks.dns.server import Server
from bothy.networks.dns.upstream import Upstream
from bothy.networks.dns.zone import Zone

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LONELY = 10.0
_FILES = 4096
_WATCHED = inotify.MOVED_TO | inotify.MOVED_FROM | inotify.DELETE | inotify.DELETE_SELF | inotify.MOVE_SELF | inotify.ONLYDIR
_GONE = inotify.DELETE_SELF | inotify.MOVE_SELF | inotify.IGNORED


class Names:
    """The process: `run` is the engine's run folder, `listener` the socket at which bothyd speaks to it."""

    def __init__(self, run: str, listener: Socket, resolv_conf: str) -> None:
        self._run, self._listener = run, listener
        self.loop, self.zone = Loop(), Zone()
        self.server = Server(self.loop, self.zone, Upstream(self.loop, resolv_conf), self.refresh)
        self._daemon: Socket | None = None
        self._inotify = inotify.init()
        inotify.add(self._inotify, f"{run}/{FOLDER}", _WATCHED)
        self._read_all()
        self.loop.watch(self._inotify, IN, lambda _: self.refresh())
        self.loop.watch(listener.fileno(), IN, lambda _: self._met())
        self.loop.later(LONELY, self._lonely)

    # -- files

    def refresh(self) -> None:
        """Take in what has changed since the last call. Nearly always that is nothing, which one system call tells."""
        while True:
            try:
                data = os.read(self._inotify, 4096)
            except BlockingIOError:
                return
            for _, mask, name in inotify.events(data):
                if mask & _GONE:
                    self.loop.stop()  # the engine's run folder has been taken away
                elif mask & inotify.OVERFLOW:
                    self._read_all()
                else:
                    self._read(name)

    def _read_all(self) -> None:
        found = set(os.listdir(f"{self._run}/{FOLDER}"))
        for name in found | set(self.zone.workloads):
            self._read(name)

    def _read(self, name: str) -> None:
        if name.startswith("."):
            return
        told = None
        try:
            with open(f"{self._run}/{FOLDER}/{name}", "rb") as file:
                told = quickjson.loads(file.read())
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as exc:
            _complain(f"{name}: {exc}")
        try:
            self.zone.put(name, told)
        except (KeyError, TypeError, ValueError) as exc:
            _complain(f"{name}: {exc!r}")

    # -- bothyd

    def _met(self) -> None:
        try:
            sock = channel.accept(self._listener)
        except OSError:
            return
        sock.setblocking(False)
        self._parted()
        self._daemon = sock
        self.loop.watch(sock.fileno(), IN, lambda _: self._heard(sock))

    def _parted(self) -> None:
        if self._daemon is not None:
            self.loop.unwatch(self._daemon.fileno())
            self._daemon.close()
            self._daemon = None

    def _heard(self, sock: Socket) -> None:
        fds: list[int] = []
        try:
            request, fds = channel.receive(sock)
            if request is None:
                self._parted()
            else:
                self._obey(sock, request, fds)
        except BlockingIOError:
            return
        except (OSError, KeyError, TypeError, ValueError) as exc:
            _complain(f"bothyd: {exc!r}")
            if isinstance(exc, OSError):
                self._parted()
        finally:
            channel.close_all(fds)

    def _obey(self, sock: Socket, request: dict[str, Any], fds: list[int]) -> None:
        """Carry out one request; takes the descriptors that it uses out of `fds`."""
        if request["op"] == "serve":
            network = self.zone.put_network(request["network"])
            sockets = [Socket(fileno=fd) for fd in fds]
            fds.clear()
            self.server.serve(network, sockets)
        elif request["op"] == "drop":
            self.server.drop(request["network"])
            self.zone.drop_network(request["network"])
        elif request["op"] == "take":
            for network_id, sockets in self.server.sockets().items():
                channel.send(sock, {"event": "sockets", "network": network_id}, [one.fileno() for one in sockets])
            channel.send(sock, {"seq": request["seq"], "ok": {"version": __version__, "pid": os.getpid()}})
        elif request["op"] == "end":
            self.loop.stop()

    def _lonely(self) -> None:
        """End when there is nobody left to serve: no bothyd, and no workload whose keeper lives or has been killed under it."""
        if self._daemon is None and not any(self._runs(workload) for workload in self.zone.workloads):
            self.loop.stop()
        else:
            self.loop.later(LONELY, self._lonely)

    def _runs(self, workload: str) -> bool:
        folder = f"{self._run}/keepers/{workload}"
        return os.path.exists(folder) and not os.path.exists(f"{folder}/exit.json")


def main(arguments: list[str] | None = None) -> int:
    """Serve until bothyd says end (see the module's text)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if len(arguments) != 3 or not arguments[1].isdecimal():
        print(f"usage: bothy-names RUN FD RESOLV_CONF    FD: inherited listening socket\n\n{__doc__}")
        return 0 if arguments == ["--help"] else 2
    run, listener = arguments[0], Socket(fileno=int(arguments[1]))
    _settle(listener)
    names = Names(run, listener, arguments[2])
    gc.collect()
    gc.freeze()
    names.loop.run()
    return 0


def _settle(listener: Socket) -> None:
    """A session and a name of its own, and nothing that it could do harm with: it reads what strangers send."""
    syscalls.leave_terminal(TITLE)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    os.set_inheritable(listener.fileno(), False)
    listener.setblocking(False)
    listener.listen(8)  # again, so that SO_PEERCRED tells who serves it
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(_FILES, hard) if hard >= 0 else _FILES, hard))
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    capabilities.clear_ambient()
    capabilities.limit_bounding(0)
    capabilities.capset(0, 0, 0)


def _complain(text: str) -> None:
    print(f"{TITLE}: {text}", file=sys.stderr, flush=True)
