"""What a keeper is told (spec.json), what it leaves behind (exit.json), and the words on its control socket.

The control socket carries one JSON object a message over SOCK_SEQPACKET, file descriptors beside it (`bothy.linux.channel`).
The keeper gets one end of a pair from the spawner at birth and listens at `control.sock` in its folder for a daemon that comes
back. A request has `op` and `seq`; the answer has the same `seq` and either `ok` (an object) or `error` (a failure, see
`bothy.errors.failure_of`). Events have `event` and no `seq`; they go to every daemon that is connected.

    daemon                                                          keeper
      │ start {clients: [Client, …]}         + one fd a client ──────▶│  set up, then run; answers when the program runs, or
      │◀────────────────────────────────── ok {pid, started, warnings}│  error, after which the keeper ends and nothing is left
      │ attach {client: Client}                   + client fd ───────▶│  the keeper serves that client itself from here on
      │ exec {plan: ExecPlan, client: Client?}  [+ client fd] ───────▶│  ok {pid}
      │ signal {exec?, number}      resize {exec?, height, width}     │  `exec` is the id of an exec; without it the main program
      │ kill {discard?}   pause {}   resume {}   update {resources}   │  kill: SIGKILL to everything that runs inside
      │ visit {}                                  + line ────────────▶│  machines: ok {}; what is asked for on the line is done
      │ top {args}                  stats {}                          │  ok {titles, processes}; ok {cpu_stats, …}
      │ connect {attachment: Attachment}                              │  one more interface, with its routes
      │ disconnect {link, heir: Interface?}                           │  and one less; the heir gets its routes from then on
      │ hosts {change: HostsChange}                                   │  lines of the hosts file (machines only)
      │ status {}                                                     │  ok {pid, started, paused, oom, execs: [{exec, pid}],
      │                                                               │  ended: [{exec, code}]}; pid 0: not started yet; ended:
      │                                                               │  the execs that ended last
      │◀─────────────────────── event exec-exit {exec, code}          │  before the exec's clients see their end
      │◀─────────────────────── event detach {exec?}                  │  a client typed its detach keys
      │◀─────────────────────── event oom {}                          │
      │◀─────────────────────── event exit {code, oom, started,       │  exit.json is on disk before this is sent; cgroups are gone
      │                                     finished, error}          │
      │◀─────────────────────── event closed {}, end of stream        │  no trace on the host is left; clients may still be flushed

Objects are in the form of `bothy.jsonable.PLAIN`. Descriptors that come with a refused request are closed. A keeper whose first
daemon vanishes before `start` ends and leaves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from bothy.containers.model import ContainerPlan
from bothy.machines.model import MachinePlan
from bothy.oci.runtime import Process

SPEC = "spec.json"


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
    the first client's. `spare`: a machine that is made ahead and waits; the plan is read again when its start is asked for."""

    id: str
    log: LogPlan
    container: ContainerPlan | None = None
    machine: MachinePlan | None = None
    tty: bool = False
    stdin: bool = False
    stdin_once: bool = False
    spare: bool = False


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
