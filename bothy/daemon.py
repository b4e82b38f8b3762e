"""bothyd, the composition root: options and environment → settings → engine → API server; then it waits to be told to end.

    bothyd [--debug] [--root FOLDER] [--run FOLDER]

Its listening socket is inherited (LISTEN_FDS and LISTEN_PID, sd_listen_fds(3): from the command line, from systemd, or from the
spawner that brings it back) or bound here. One daemon a run folder: `daemon.lock` is held as long as it lives, and says by whom.
SIGTERM and SIGINT end it in order: requests are answered, the spawner goes too, and everything that runs goes on.
"""

from __future__ import annotations

import sys

# Without OpenSSL, which this process has no use for: asyncio, aiohttp and hashlib do without if they find none (decision 0120).
sys.modules["ssl"] = sys.modules["_hashlib"] = None  # type: ignore[assignment]

import asyncio
import fcntl
import gc
import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bothy import __version__
from bothy.api.server import app
from bothy.engine import heavy
from bothy.engine.core import Engine
from bothy.engine.settings import Settings
from bothy.engine.spawner import Revival
from bothy.errors import BothyError, Invalid, Unavailable
from bothy.linux import syscalls
from bothy.log import configure, logger
from bothy.networks import names
from bothy.paths import Paths

_log = logger("daemon")
_FIRST_FD = 3
_BACKLOG = 1024
TITLE = "bothyd"


@dataclass
class Options:
    """What the command line says."""

    debug: bool = False
    root: str = ""
    run: str = ""


def main() -> int:
    """Be the daemon; the exit code of the process."""
    options = _options(sys.argv[1:])
    syscalls.set_name(TITLE)
    heavy.tame_allocator()
    if options.debug:
        os.environ.setdefault("BOTHY_DEBUG", "all")
    configure()
    if options.root:
        os.environ["BOTHY_ROOT"] = os.path.abspath(options.root)
    if options.run:
        os.environ["BOTHY_RUN"] = os.path.abspath(options.run)
    paths = Paths.from_environ()
    try:
        lock = take_lock(paths.lock)
    except BothyError as exc:
        print(f"bothyd: {exc}", file=sys.stderr)
        return 1
    try:
        sock = listening_socket(paths.socket)
        asyncio.run(_serve(paths, _settings(debug=options.debug), sock))
    except BothyError as exc:
        print(f"bothyd: {exc}", file=sys.stderr)
        return 1
    finally:
        os.close(lock)
    return 0


def _settings(*, debug: bool) -> Settings:
    """The settings that the environment has; the rest are the defaults. Raises Invalid."""
    bind = os.environ.get("BOTHY_DEFAULT_BIND", "")
    if bind and not names.is_address(bind, 4):
        raise Invalid(f"BOTHY_DEFAULT_BIND: {bind!r} is not an IPv4 address", hint="127.0.0.1 narrows it to this host")
    return Settings(
        debug=debug,
        spares=int(os.environ.get("BOTHY_SPARES") != "0"),
        resolv_conf=os.path.abspath(os.environ.get("BOTHY_RESOLV_CONF") or Settings.resolv_conf),
        default_bind=bind,
    )


def _options(arguments: list[str]) -> Options:
    if not arguments:
        return Options()
    import argparse  # the daemon stays, so what it does not need as a rule is not there as a rule

    parser = argparse.ArgumentParser(
        "bothyd", description="The engine of bothy. It is started by the command line when it is needed."
    )
    parser.add_argument("--debug", action="store_true", help="log what every room does (BOTHY_DEBUG=room,… for some)")
    parser.add_argument("--root", metavar="FOLDER", help="where state is kept (BOTHY_ROOT, /var/lib/bothy)")
    parser.add_argument("--run", metavar="FOLDER", help="where the socket is (BOTHY_RUN, /run/bothy)")
    parser.add_argument("--version", action="version", version=f"bothyd {__version__}")
    return parser.parse_args(arguments, Options())


def take_lock(path: Path) -> int:
    """The descriptor of the held lock, until the process ends. Raises Unavailable naming who holds it."""
    try:
        os.makedirs(path.parent, mode=0o755, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as exc:
        raise Unavailable(f"{exc.filename}: {exc.strerror}", hint="bothyd runs as root; BOTHY_RUN names its run folder") from exc
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(fd, 32, 0).decode(errors="replace").strip()
        os.close(fd)
        raise Unavailable(
            f"another bothyd (process {holder or 'unknown'}) serves {path.parent}", hint="set BOTHY_RUN to another folder"
        ) from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def listening_socket(path: Path) -> socket.socket:
    """The inherited socket, or a new one at `path` (mode 0660). Raises Unavailable."""
    if os.environ.pop("LISTEN_PID", "") == str(os.getpid()) and int(os.environ.pop("LISTEN_FDS", "0")) >= 1:
        os.environ.pop("LISTEN_FDNAMES", None)
        os.set_inheritable(_FIRST_FD, False)
        return socket.socket(fileno=_FIRST_FD)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o117)
    try:
        path.unlink(missing_ok=True)
        sock.bind(str(path))
        sock.listen(_BACKLOG)
    except OSError as exc:
        sock.close()
        raise Unavailable(f"can not listen at {path}: {exc.strerror or exc}", errno=exc.errno or 0) from exc
    finally:
        os.umask(mask)
    return sock


async def _serve(paths: Paths, settings: Settings, sock: socket.socket) -> None:
    """Run engine and API until SIGTERM."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_loop_failed)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: None)
    with socket.socket(fileno=os.dup(sock.fileno())) as spare:
        engine = Engine(paths, settings, Revival(_command(), spare.fileno()))
        await engine.start()
        runner = await app.start(engine, sock)
        gc.collect()
        gc.freeze()
        await ended.wait()
        _log.info("ending; what runs goes on")
        await runner.close()
        await engine.close(teardown=engine.teardown_asked)
    if engine.teardown_asked:
        paths.socket.unlink(missing_ok=True)


def _command() -> list[str]:
    """How to start this very daemon again; its folders are in the environment."""
    mode = "-I" if sys.flags.isolated else "-P"
    return [sys.executable, mode, "-m", "bothy.daemon", *(["--debug"] if "--debug" in sys.argv else [])]


def _loop_failed(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A failure that nobody was there to see."""
    exc = context.get("exception")
    _log.error("%s", context.get("message"), exc_info=exc if isinstance(exc, BaseException) else None)


if __name__ == "__main__":
    sys.exit(main())
