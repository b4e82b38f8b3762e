"""How the command line starts an engine when none listens: it binds the socket and hands it to a daemon that is no child of its.

    command line                                 between                     bothyd
      │ lock start.lock, look again, bind, listen
      │ fork ───────────────────────────────────▶ setsid, fork ──────────────▶ fds 0 1 2 3, LISTEN_FDS=1, exec
      │ pid ◀───────────────────────────────────── exit                         │
      │ unlock, connect: the backlog holds the request until it serves          │
      │◀──────────────────────────── the answer ────────────────────────────────┤
      │   … or its end, by pidfd: the last lines of daemon.log tell why

Any number of command lines may come at once: one of them binds, all connect. A daemon that dies leaves a socket on which nobody
listens; whoever finds it starts the next one. Standard library only, and little of it.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import sys

from bothy import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from typing import NoReturn

BACKLOG = 1024
LISTEN_FD = 3
LOG_LINES = 12


class Watch:
    """A daemon that was just started: waits for its first answer or its death, whichever comes first."""

    def __init__(self, pid: int, log: str, log_start: int) -> None:
        self._log = log
        self._log_start = log_start
        try:
            self._pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            self._pidfd = -1

    def wait(self, sock: _socket.socket) -> None:
        """Return when `sock` has an answer to read. Raises Unavailable with the end of the log if the daemon died."""
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        if self._pidfd >= 0:
            poll.register(self._pidfd, select.POLLIN)
        ready = {fd for fd, _ in poll.poll(None if self._pidfd >= 0 else 0)}
        self.close()
        try:
            if sock.fileno() in ready and sock.recv(1, socket.MSG_PEEK):
                return
        except ConnectionResetError:
            pass
        self.explain()

    def close(self) -> None:
        """Watch no longer."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def explain(self) -> NoReturn:
        """Raises Unavailable with what the daemon said last."""
        self.close()
        lines: list[str] = []
        try:
            with open(self._log, "rb") as log:
                log.seek(self._log_start)
                lines = log.read()[-8192:].decode("utf-8", "replace").splitlines()[-LOG_LINES:]
        except OSError:
            pass
        said = "\n".join(["", *lines]) if lines else " nothing"
        raise errors.Unavailable(f"the engine could not start; it said:{said}", hint=f"its log is {self._log}")


def connect_or_start(path: str, run: str) -> tuple[socket.socket, Watch | None]:
    """A connection to the engine at `path`, which is started if nobody listens there.

    Raises Forbidden, Unavailable; a failure leaves no process and no lock.
    """
    try:
        os.makedirs(run, mode=0o755, exist_ok=True)
        lock = os.open(f"{run}/start.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except PermissionError as exc:
        raise errors.Forbidden(
            f"no engine listens at {path}, and {exc.filename} does not let this user start one",
            hint="start it as root: sudo bothy info",
        ) from exc
    except OSError as exc:
        raise errors.Unavailable(f"{exc.filename}: {exc.strerror}", hint="the run folder is BOTHY_RUN") from exc
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (sock := connect(path)) is not None:
            return sock, None
        try:
            watch = start(path, run)
        except OSError as exc:
            raise errors.Unavailable(
                f"the engine could not be started: {exc.filename or path}: {exc.strerror}",
                hint="the run folder is BOTHY_RUN",
                errno=exc.errno or 0,
            ) from exc
        if (sock := connect(path)) is None:
            watch.explain()
        return sock, watch
    finally:
        os.close(lock)


def connect(path: str) -> socket.socket | None:
    """A connection, None if nobody listens."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(path)
    except (FileNotFoundError, ConnectionRefusedError):
        sock.close()
        return None
    except OSError as exc:
        sock.close()
        raise errors.Unavailable(f"{path}: {exc.strerror}", errno=exc.errno or 0) from exc
    return sock


def listen(path: str) -> socket.socket:
    """Bind and listen, readable and writable for root and its group; a file left by an engine that is gone makes way."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o117)
    try:
        sock.bind(path)
    except OSError as exc:
        sock.close()
        hint = "a socket's path has at most 107 bytes: choose a shorter BOTHY_RUN" if len(os.fsencode(path)) > 107 else ""
        raise errors.Unavailable(f"{path}: {exc.strerror or exc}", hint=hint) from exc
    finally:
        os.umask(mask)
    sock.listen(BACKLOG)
    return sock


def start(path: str, run: str) -> Watch:
    """Start a daemon with a new listening socket at `path`; to be called under the lock. It may still die: see Watch."""
    log = f"{run}/daemon.log"
    with listen(path) as sock:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        log_start = os.fstat(out).st_size
        reader, writer = os.pipe()
        between = os.fork()
        if not between:
            try:
                os.setsid()
                pid = os.fork()
                if not pid:
                    become_daemon(sock.fileno(), out)
                os.write(writer, b"%d" % pid)
            finally:
                os._exit(0)
        os.close(writer)
        os.close(out)
        said = os.read(reader, 32)
        os.close(reader)
        os.waitpid(between, 0)
    if not said:
        raise errors.Unavailable("the engine could not be started: fork failed")
    return Watch(int(said), log, log_start)


def become_daemon(listener: int, out: int) -> NoReturn:
    """In the forked child: put the descriptors in their places and become the daemon. Never returns."""
    try:
        null = os.open("/dev/null", os.O_RDWR)
        listener, out, null = (fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (listener, out, null))
        for source, target in ((null, 0), (out, 1), (out, 2), (listener, LISTEN_FD)):
            os.dup2(source, target)
        os.closerange(LISTEN_FD + 1, 1 << 20)
        os.chdir("/")
        os.umask(0o022)
        environ = {**os.environ, "LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
        # -P: the current folder is not searched for modules; -I as well where the command line itself ran so.
        mode = "-I" if sys.flags.isolated else "-P"
        os.execve(sys.executable, [sys.executable, mode, "-m", "bothy.daemon"], environ)
    except BaseException as exc:
        os.write(2, f"{sys.executable}: {exc}\n".encode())
    finally:
        os._exit(127)
