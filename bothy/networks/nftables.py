"""libnftables in this process: nft(8)'s own language and its own parser, without starting a program.

One instance is one netlink socket in the network namespace in which it was made, opened at first use. Not to be shared by
threads. `Watch` tells when anybody on the host changes a ruleset.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import struct
from typing import Any

from bothy.errors import Broken, Unavailable
from bothy.linux import netlink

LIBRARY = "libnftables.so.1"
OUTPUT_STATELESS, OUTPUT_JSON = 1 << 2, 1 << 4

# linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h
NETLINK_NETFILTER = 12
NFNLGRP_NFTABLES = 7
NFT_MSG_NEWGEN = 10 << 8 | 15
NFTA_GEN_PROC_PID = 2


def supported() -> bool:
    """Whether this kernel has nftables, or can load it."""
    try:
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER).close()
    except OSError:
        return False
    return True


def require() -> None:
    """Raises Unavailable where this kernel has no nftables."""
    if not supported():
        raise Unavailable("this kernel has no nftables", hint="modprobe nf_tables; without it only --network none and host work")


class Nftables:
    """Run commands of nft's language. Raises Unavailable where the library is missing."""

    def __init__(self) -> None:
        self._library: Any = None
        self._context: Any = None

    def run(self, script: str) -> None:
        """Carry out a script as one transaction: all of it, or Broken (with nft's words) and nothing of it."""
        self._call(script, 0)

    def query(self, command: str) -> list[dict[str, Any]]:
        """The objects that a `list` command shows. Raises Broken, also where the thing named does not exist."""
        found: list[dict[str, Any]] = json.loads(self._call(command, OUTPUT_JSON | OUTPUT_STATELESS))["nftables"]
        return found

    def close(self) -> None:
        if self._context:
            self._library.nft_ctx_free(self._context)
            self._context = None

    def _call(self, command: str, flags: int) -> str:
        if not self._context:
            self._open()
        library = self._library
        library.nft_ctx_output_set_flags(self._context, flags)
        status = library.nft_run_cmd_from_buffer(self._context, command.encode())
        output = library.nft_ctx_get_output_buffer(self._context).decode(errors="replace")
        errors = library.nft_ctx_get_error_buffer(self._context).decode(errors="replace")
        if status:
            first = errors.strip().splitlines()
            raise Broken(f"nftables refused: {first[0] if first else 'no reason given'}", stage="nftables")
        return str(output)

    def _open(self) -> None:
        require()  # else the library ends the whole process (exit(3) where it can not open its socket)
        if not self._library:
            try:
                library = ctypes.CDLL(LIBRARY)
            except OSError as exc:
                raise Unavailable(f"{LIBRARY} can not be loaded: {exc}", hint="apt-get install libnftables1") from exc
            library.nft_ctx_new.restype = ctypes.c_void_p
            library.nft_ctx_new.argtypes = [ctypes.c_uint32]
            library.nft_ctx_output_set_flags.restype = None
            library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
            library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
            for name in ("nft_ctx_free", "nft_ctx_buffer_output", "nft_ctx_buffer_error"):
                getattr(library, name).argtypes = [ctypes.c_void_p]
            for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
                getattr(library, name).argtypes = [ctypes.c_void_p]
                getattr(library, name).restype = ctypes.c_char_p
            self._library = library
        context = self._library.nft_ctx_new(0)
        if not context:
            raise Unavailable("libnftables could not open a netlink socket")
        self._library.nft_ctx_buffer_output(context)
        self._library.nft_ctx_buffer_error(context)
        self._context = context


class Watch:
    """Tells when another process has changed any nftables ruleset in this network namespace."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, NETLINK_NETFILTER)
        self._socket.bind((0, 1 << (NFNLGRP_NFTABLES - 1)))

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def foreign_change(self) -> bool:
        """Read all that has come; true if some of it was another process's doing (or if so much came that some was lost)."""
        foreign = False
        while True:
            try:
                data = self._socket.recv(1 << 16)
            except BlockingIOError:
                return foreign
            except OSError:  # ENOBUFS: messages were dropped
                foreign = True
                continue
            foreign = foreign or any(pid != os.getpid() for pid in _generations(data))


def _generations(data: bytes) -> list[int]:
    """The processes that committed the transactions told of in `data`."""
    found, at = [], 0
    while at + 20 <= len(data):
        length, kind = struct.unpack_from("=IH", data, at)
        if length < 20:
            break
        if kind == NFT_MSG_NEWGEN:
            pid = netlink.attributes(data[at + 20 : at + length]).get(NFTA_GEN_PROC_PID)
            found.append(int.from_bytes(pid, "big") if pid else 0)
        at += (length + 3) & ~3
    return found
