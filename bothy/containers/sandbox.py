"""A sandbox: a user namespace and the namespaces it owns, made ahead of need and held as file descriptors only.

    spawner                         helper child
      │ fork ───────────────────────▶│ unshare(user)
      │◀────────────────── "0" ──────│ (or an errno, and it ends)
      │ id maps ── one byte ────────▶│ becomes its root, unshare(net, ipc, uts), lo up
      │◀────────────────── "0" ──────│
      │ open /proc/<pid>/ns          │
      │ end of the pipe ────────────▶│ ends; the descriptors keep the namespaces

The spawner keeps some of these ready; a keeper inherits one by fork. No process lives in it.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import NoReturn

from bothy.errors import StageError
from bothy.linux import links, namespaces, syscalls

PRIVATE, HOST = "private", "host"


@dataclass(frozen=True)
class Sandbox:
    """The fds are owned by who holds this value; `userns` is -1 with `id_base` 0 (no user namespace), `netns` is -1 for the
    host's network."""

    id_base: int
    userns: int
    netns: int
    ipcns: int
    utsns: int

    def close(self) -> None:
        """Let go of the fds; namespaces that nothing else holds vanish. Once only."""
        for fd in (self.userns, self.netns, self.ipcns, self.utsns):
            if fd >= 0:
                os.close(fd)


def make(id_base: int, network: str = PRIVATE, user: str = "") -> Sandbox:
    """A new sandbox. `network` is `private` (a new namespace, loopback up), `host`, or the path of a namespace to join.
    `user`: the path of a user namespace with that id range, which is joined.

    Takes about a millisecond and a half. Only for single-threaded processes. Raises StageError (stage `sandbox`); nothing is left.
    """
    flags = syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWUTS
    flags |= syscalls.CLONE_NEWNET if network == PRIVATE else 0
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        ours.close()
        _hold(theirs, flags, user if id_base else "", own_user=bool(id_base))
    theirs.close()
    try:
        if id_base and not user:
            _expect(ours)
            namespaces.write_id_maps(pid, id_base)
            ours.send(b"0")
        _expect(ours)
        return _open(pid, id_base, network)
    except OSError as exc:
        raise StageError("sandbox", exc.strerror or str(exc), errno=exc.errno or 0, path=str(exc.filename or "")) from exc
    finally:
        ours.close()
        os.waitpid(pid, 0)


def _expect(sock: socket.socket) -> None:
    """The helper's word that all is well; OSError with its errno if not."""
    answer = sock.recv(16)
    if answer != b"0":
        number = int(answer or b"5")
        raise OSError(number, os.strerror(number))


def _hold(sock: socket.socket, flags: int, user: str, *, own_user: bool) -> NoReturn:
    """The helper child: make the namespaces, stay until they have been opened."""
    try:
        if own_user:
            if user:
                namespaces.join(os.open(user, os.O_RDONLY | os.O_CLOEXEC), "user")
            else:
                syscalls.unshare(syscalls.CLONE_NEWUSER)
                sock.send(b"0")
                if not sock.recv(1):
                    os._exit(1)
            os.setgroups([])
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
        syscalls.unshare(flags)
        if flags & syscalls.CLONE_NEWNET:
            links.loopback_up()
        sock.send(b"0")
        sock.recv(1)
    except OSError as exc:
        sock.send(str(exc.errno or 5).encode())
    finally:
        os._exit(0)


def _open(pid: int, id_base: int, network: str) -> Sandbox:
    fds = []
    try:
        if id_base:
            fds.append(namespaces.open_namespace("user", pid))
        if network == PRIVATE:
            fds.append(namespaces.open_namespace("network", pid))
        elif network != HOST:
            fds.append(os.open(network, os.O_RDONLY | os.O_CLOEXEC))
        fds.append(namespaces.open_namespace("ipc", pid))
        fds.append(namespaces.open_namespace("uts", pid))
    except OSError:
        for fd in fds:
            os.close(fd)
        raise
    userns = fds.pop(0) if id_base else -1
    netns = fds.pop(0) if network != HOST else -1
    return Sandbox(id_base, userns, netns, fds[0], fds[1])
