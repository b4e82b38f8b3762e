"""What a keeper is told (spec.json), what it leaves behind (exit.json), and the words on its control socket.

The control socket carries one JSON object a message over SOCK_SEQPACKET, file descriptors beside it. The keeper gets one end
of a pair from the spawner at birth and listens at `control.sock` in its folder for a daemon that comes back. A request has
`op` and `seq`; the answer has the same `seq` and either `ok` (an object) or `error` (a failure, see `bothy.errors.failure_of`). Events have `event` and no `seq`.

    daemon                                         keeper
      │ start {}                [+ client fds] ──────▶│  set up, then run; answers when the program runs
      │◀────────────────────────── ok {pid, started} │  (or error, after which the keeper is gone and nothing is left)
      │ attach {client…}         + client fd  ──────▶ │  the keeper serves that client itself from here on
      │ exec {id, process, tty, …} [+ client fd] ───▶ │  ok {pid}
      │ resize {exec?, height, width}   signal {exec?, number}   pause   resume   top {}   stats {}   state {}
      │ update {resources}              status {} (answers {pid, started, paused, execs:[…]})
      │◀──────────── event exec-exit {exec, code}     │
      │◀──────────── event oom {}                     │
      │◀──────────── event exit {code, oom, finished} │  exit.json is on disk before this is sent; then the keeper ends
"""

from __future__ import annotations

from dataclasses import dataclass

from bothy.containers.model import ContainerPlan
from bothy.machines.model import MachinePlan
from bothy.oci.runtime import Process


@dataclass(frozen=True)
class LogPlan:
    """`driver` json-file or none. A file is rotated at `max_size` bytes, `max_files` are kept in all (older
    ones gzipped if `compress`)."""

    path: str
    driver: str = "json-file"
    max_size: int = 10 * 1024 * 1024
    max_files: int = 3
    compress: bool = True


@dataclass(frozen=True)
class KeeperPlan:
    """One of `container` and `machine` is set. `stdin`: the program has an open stdin; `stdin_once`: it ends with
    the first client's."""

    id: str
    log: LogPlan
    container: ContainerPlan | None = None
    machine: MachinePlan | None = None
    tty: bool = False
    stdin: bool = False
    stdin_once: bool = False


@dataclass(frozen=True)
class Client:
    """One attached client: the fd beside the message is its connection, already answered with 101 or 200.

    `framing` is `mux` (Docker's 8-byte frames) or `raw`; `initial` is what the client had sent already (latin-1 text).
    `detach_keys` as in Docker (`ctrl-p,ctrl-q`).
    """

    framing: str = "raw"
    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    detach_keys: str = "ctrl-p,ctrl-q"
    initial: str = ""


@dataclass(frozen=True)
class Exit:
    """`code` as a shell tells it (128 + signal). `error` is set where the workload ended because something of ours failed.
    Times are RFC 3339 with nanoseconds, UTC."""

    code: int
    started: str = ""
    finished: str = ""
    oom: bool = False
    error: str = ""


@dataclass(frozen=True)
class ExecPlan:
    """`process` as in the OCI spec; its terminal flag says whether there is a tty."""

    id: str
    process: Process
    stdin: bool = False
    privileged: bool = False
