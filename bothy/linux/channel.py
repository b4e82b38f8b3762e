"""Messages between bothy's processes: one JSON object a packet over a SOCK_SEQPACKET unix socket, file descriptors beside it.

    left, right = pair()
    send(left, {"op": "attach", "seq": 7}, [fd])      one sendmsg(2), all or nothing
    message, fds = receive(right)                     (None, []) at the end of the stream

Blocking or not is the socket's own mode: a socket that would block raises BlockingIOError, so the same two functions serve the
synchronous processes and, under `add_reader`, the daemon. Descriptors that arrive are close-on-exec and belong to the receiver.
What is larger than a message goes by a file, named in the message. See unix(7), cmsg(3).

Every keeper runs this code and keeps the memory that it touched: the C half of `socket` and `json` only, and no `typing`.
"""

from __future__ import annotations

import _socket
import array
import os
from collections.abc import Iterable

from bothy import quickjson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_MESSAGE = 512 * 1024
MAX_DESCRIPTORS = 250
_BUFFER = 2 * MAX_MESSAGE
_INT = array.array("i").itemsize
_ROOM_FOR_FDS = _socket.CMSG_SPACE(MAX_DESCRIPTORS * _INT)
_AF_UNIX, _SEQPACKET, _CLOEXEC = _socket.AF_UNIX, _socket.SOCK_SEQPACKET, _socket.SOCK_CLOEXEC
_SOL_SOCKET, _SCM_RIGHTS = _socket.SOL_SOCKET, _socket.SCM_RIGHTS
_SO_SNDBUF, _SO_RCVBUF, _SO_SNDBUFFORCE, _SO_RCVBUFFORCE = _socket.SO_SNDBUF, _socket.SO_RCVBUF, 32, 33
_MSG_NOSIGNAL, _MSG_CMSG_CLOEXEC = _socket.MSG_NOSIGNAL, _socket.MSG_CMSG_CLOEXEC
_MSG_TRUNCATED = _socket.MSG_TRUNC | _socket.MSG_CTRUNC
Message = dict[str, "Any"]
Socket = _socket.socket
"""What the functions here work on; a `socket.socket` is one."""


class ChannelError(OSError):
    """What arrived is not a message: truncated, or not a JSON object."""


def widen(sock: Socket) -> None:
    """Make room for messages of MAX_MESSAGE bytes: beyond the limits of net.core where privilege allows, up to them where not."""
    for force, plain in ((_SO_SNDBUFFORCE, _SO_SNDBUF), (_SO_RCVBUFFORCE, _SO_RCVBUF)):
        try:
            sock.setsockopt(_SOL_SOCKET, force, _BUFFER)
        except PermissionError:
            sock.setsockopt(_SOL_SOCKET, plain, _BUFFER)


def pair() -> tuple[Socket, Socket]:
    """Two connected ends, blocking, close-on-exec, widened."""
    left, right = narrow_pair()
    widen(left)
    widen(right)
    return left, right


def narrow_pair() -> tuple[Socket, Socket]:
    """Two connected ends for small messages, blocking, close-on-exec."""
    return _socket.socketpair(_AF_UNIX, _SEQPACKET | _CLOEXEC)


def adopt(fd: int) -> Socket:
    """The socket object of a descriptor that was inherited or received; it owns the descriptor from here on."""
    sock = Socket(_AF_UNIX, _SEQPACKET, 0, fd)
    os.set_inheritable(fd, False)
    widen(sock)
    return sock


def listen(folder: str, name: str) -> Socket:
    """A listening socket at `folder`/`name`, mode 0600, non-blocking; a stale one there is replaced.

    The path is bound by way of a descriptor of the folder, so that its length does not matter (sun_path holds 107 bytes).
    """
    folder_fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    sock = Socket(_AF_UNIX, _SEQPACKET | _CLOEXEC)
    try:
        try:
            os.unlink(name, dir_fd=folder_fd)
        except FileNotFoundError:
            pass
        mask = os.umask(0o177)
        try:
            sock.bind(f"/proc/self/fd/{folder_fd}/{name}")
        finally:
            os.umask(mask)
        sock.listen(8)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    finally:
        os.close(folder_fd)
    return sock


def next_of(listener: Socket) -> tuple[Socket, Any]:
    """The next connection of any listening socket, blocking, and whose it is. Raises BlockingIOError when there is none."""
    fd, peer = listener._accept()  # type: ignore[attr-defined]  # noqa: SLF001 - all that socket.socket.accept does, without `socket`
    return Socket(fileno=fd), peer


def accept(listener: Socket) -> Socket:
    """The next connection, widened. Raises BlockingIOError when there is none (any more)."""
    sock, _ = next_of(listener)
    widen(sock)
    return sock


def connect(folder: str, name: str) -> Socket:
    """A connection to who listens at `folder`/`name`. Raises FileNotFoundError, or ConnectionRefusedError where nobody does."""
    folder_fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    sock = Socket(_AF_UNIX, _SEQPACKET | _CLOEXEC)
    try:
        sock.connect(f"/proc/self/fd/{folder_fd}/{name}")
        widen(sock)
    except BaseException:
        sock.close()
        raise
    finally:
        os.close(folder_fd)
    return sock


def encode(message: Message) -> bytes:
    """The bytes of a message. Raises ValueError if it is larger than a packet may be."""
    data = quickjson.dumps(message).encode()
    if len(data) > MAX_MESSAGE:
        raise ValueError(f"message of {len(data)} bytes, {MAX_MESSAGE} fit")
    return data


def send(sock: Socket, message: Message, fds: Iterable[int] = ()) -> None:
    """Send a message and duplicates of `fds`; all of it or nothing.

    Raises BlockingIOError (non-blocking socket, receiver is slow), BrokenPipeError or ConnectionResetError (nobody there).
    """
    send_encoded(sock, encode(message), fds)


def send_bytes(sock: Socket, data: bytes, fds: Iterable[int] = ()) -> None:
    """`send` for what is not a message in the form that `receive` expects."""
    send_encoded(sock, data, fds)


def send_encoded(sock: Socket, data: bytes, fds: Iterable[int] = ()) -> None:
    """`send` for a message that is encoded already (kept in a queue)."""
    rights = array.array("i", fds)
    sock.sendmsg([data], [(_SOL_SOCKET, _SCM_RIGHTS, rights)] if rights else [], _MSG_NOSIGNAL)


def receive(sock: Socket) -> tuple[Message | None, list[int]]:
    """The next message and the descriptors that came with it; `(None, [])` when the other side is gone.

    Raises BlockingIOError (non-blocking socket, nothing there) and ChannelError (not a message; its descriptors are closed).
    """
    try:
        data, ancillary, flags, _ = sock.recvmsg(MAX_MESSAGE, _ROOM_FOR_FDS, _MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        # The peer closed with words of ours unread. The kernel tells that before what the peer said last; ask again for it.
        data, ancillary, flags, _ = sock.recvmsg(MAX_MESSAGE, _ROOM_FOR_FDS, _MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if level == _SOL_SOCKET and kind == _SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % _INT])
    if not data and not fds:
        return None, []
    try:
        if flags & _MSG_TRUNCATED:
            raise ChannelError("a message was truncated")
        message = quickjson.loads(data)
        if not isinstance(message, dict):
            raise ChannelError("a message is not an object")
    except (ValueError, ChannelError) as exc:
        close_all(fds)
        raise exc if isinstance(exc, ChannelError) else ChannelError(f"a message is not JSON: {exc}") from None
    return message, list(fds)


def close_all(fds: Iterable[int]) -> None:
    """Close descriptors that nobody wanted."""
    for fd in fds:
        os.close(fd)
