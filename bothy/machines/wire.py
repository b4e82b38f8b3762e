"""The bytes between a machine's keeper and the agent in its guest, over one virtio-serial port. Sans I/O: both ends use this.

    header (8 bytes, big endian)                payload
    kind u8 │ 0 │ stream u16 │ length u32   │   length bytes

    MESSAGE   an object; stream is 0                                 requests, answers, events (see bothy.guest.agent)
    DATA      bytes of a stream                                      stream = 4 * process + (0 stdin, 1 stdout, 2 stderr)
    END       the stream is at its end; no payload
    CREDIT    a u32: so many more bytes of the stream may be sent    the other way round than the stream flows

Flow control: of each stream the sender may have WINDOW bytes under way; the receiver gives credit back as it gets rid of them, so a
slow client holds up its own stream and no other. Messages are not subject to it: they are small and answered.

What the agent says is JSON. What the keeper says is in the form of Python's marshal, which a cold guest reads in half the time; the
interpreter at the other end is the keeper's own, and it has to trust the keeper anyway.

The keeper treats what comes as an attacker's: lengths are limited before anything is kept, unknown kinds and malformed
messages raise WireError, after which the connection is of no use.
"""

from __future__ import annotations

import json
import marshal
import struct
from typing import Any, NamedTuple

MESSAGE, DATA, END, CREDIT = 1, 2, 3, 4
STDIN, STDOUT, STDERR = 0, 1, 2

WINDOW = 64 * 1024
CHUNK = 32 * 1024  # no frame of data is longer, so that streams take turns
MAX_MESSAGE = 4 * 1024 * 1024
MAX_PROCESS = 0x3FFF
REHEARSAL = "/sbin/rehearsal"  # a program in the guest's first root that only exits
CARDS = 4  # network cards of each machine; those without a network are hidden in the guest

_HEADER = struct.Struct(">BxHI")
_LIMIT = {MESSAGE: MAX_MESSAGE, DATA: WINDOW, END: 0, CREDIT: 4}
_MARSHAL = 4  # the format of all interpreters since 3.4


class WireError(ValueError):
    """What came is not of this protocol."""


class Frame(NamedTuple):
    kind: int
    stream: int
    payload: bytes


def card_mac(card: int) -> str:
    """The hardware address that a network card has in the template, by which the agent knows which one it is."""
    return f"02:00:00:00:00:{card + 1:02x}"


def stream_of(process: int, which: int) -> int:
    """The number of a process's stdin, stdout or stderr."""
    return process * 4 + which


def encode(kind: int, stream: int, payload: bytes = b"") -> bytes:
    return _HEADER.pack(kind, stream, len(payload)) + payload


def encode_message(message: dict[str, Any]) -> bytes:
    """A message for the keeper. Raises ValueError for one that is too long to be taken at the other end."""
    return _encode(json.dumps(message, separators=(",", ":")).encode())


def encode_order(message: dict[str, Any]) -> bytes:
    """A message for the agent. Raises ValueError as `encode_message`."""
    return _encode(marshal.dumps(message, _MARSHAL))


def _encode(payload: bytes) -> bytes:
    if len(payload) > MAX_MESSAGE:
        raise ValueError(f"message of {len(payload)} bytes, {MAX_MESSAGE} fit")
    return encode(MESSAGE, 0, payload)


def encode_credit(stream: int, amount: int) -> bytes:
    return encode(CREDIT, stream, amount.to_bytes(4, "big"))


def message_of(frame: Frame) -> dict[str, Any]:
    """What the agent says in a MESSAGE frame. Raises WireError."""
    try:
        message = json.loads(frame.payload)
    except (ValueError, RecursionError) as exc:
        raise WireError(f"a message is not JSON: {exc!r}") from None
    if not isinstance(message, dict):
        raise WireError("a message is not an object")
    return message


def order_of(frame: Frame) -> dict[str, Any]:
    """What the keeper says in a MESSAGE frame. Only for the agent: what marshal reads has to be trusted."""
    order: dict[str, Any] = marshal.loads(frame.payload)
    return order


def credit_of(frame: Frame) -> int:
    """The amount in a CREDIT frame. Raises WireError."""
    if len(frame.payload) != 4:
        raise WireError("credit is not four bytes")
    amount = int.from_bytes(frame.payload, "big")
    if amount > WINDOW:
        raise WireError(f"credit of {amount} bytes, the window is {WINDOW}")
    return amount


class Decoder:
    """Cuts what arrives into frames; keeps at most one unfinished frame."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are whole now. Raises WireError (then throw the decoder away)."""
        buffer = self._buffer
        buffer += data
        frames, at = [], 0
        while at + 8 <= len(buffer):
            kind, stream, length = _HEADER.unpack_from(buffer, at)
            limit = _LIMIT.get(kind)
            if limit is None or length > limit:
                raise WireError(f"frame of kind {kind} and {length} bytes")
            if at + 8 + length > len(buffer):
                break
            frames.append(Frame(kind, stream, bytes(buffer[at + 8 : at + 8 + length])))
            at += 8 + length
        if at:
            del buffer[:at]
        return frames
