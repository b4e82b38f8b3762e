"""What a helper gives its keeper when the container runs: one message, most of which the keeper does not look at before it has to.

    mask, one letter a descriptor │ 0 │ JSON {"names": […], …}        beside it: the descriptors

The mask says what a parked keeper has to wake up for. Names of descriptors: `control` (connected daemons), `listener`, `pidfd`
(of the init), `stdin`, `stdout`, `stderr` or `terminal`, `root`, `oom` or `oom-exception`, `client` (in the order of the
state's `clients`).
"""

from __future__ import annotations

import os
from typing import Any

from bothy import quickjson
from bothy.linux import channel

READABLE, WRITABLE, HANGUP, EXCEPTION = ord("r"), ord("w"), ord("h"), ord("p")
MACHINE = b"m"
_WAKES = {
    "control": "r",
    "listener": "r",
    "pidfd": "r",
    "stdout": "r",
    "stderr": "r",
    "terminal": "r",
    "oom": "r",
    "oom-exception": "p",
}


def give(sock: channel.Socket, state: dict[str, Any], fds: list[tuple[str, int]]) -> None:
    """Hand over. A client wakes the keeper when it sends something (if that is wanted), or has sent it before, or hangs up."""
    clients = iter(state["clients"])
    mask = "".join(_client(next(clients)) if name == "client" else _WAKES.get(name, ".") for name, _ in fds)
    message = quickjson.dumps({**state, "names": [name for name, _ in fds]})
    channel.send_bytes(sock, mask.encode() + b"\0" + message.encode(), [fd for _, fd in fds])


def _client(client: dict[str, Any]) -> str:
    if not client["stdin"]:
        return "h"
    return "w" if client["initial"] else "r"


def unpack(state: bytes, fds: list[int]) -> tuple[dict[str, Any], dict[str, list[int]]]:
    """The state, and the descriptors by name."""
    data = quickjson.loads(state.partition(b"\0")[2])
    by_name: dict[str, list[int]] = {}
    for name, fd in zip(data["names"], fds, strict=True):
        by_name.setdefault(name, []).append(fd)
    return data, by_name


def set_name(name: bytes) -> None:
    """The name of this process, as prctl(2) PR_SET_NAME would (without ctypes, which costs a keeper 20 pages)."""
    fd = os.open("/proc/self/comm", os.O_WRONLY | os.O_CLOEXEC)
    os.write(fd, name)
    os.close(fd)
