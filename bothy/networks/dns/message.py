"""DNS messages, as far as a resolver of local names has to understand them: one question is read, an answer is written.

A name is kept as it is on the wire, in small letters (`b"\\x03web\\x00"`): lengths of labels are below 64 and so are no letters,
which makes folding the case of the whole right, comparing exact (a label may hold a dot), and reading and writing free of charge.

What is not understood is passed on as it came, never rewritten. Nothing here raises for what a stranger sent: see `read`.
Source: RFC 1035 section 4, RFC 6891 (EDNS), RFC 8020.
"""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from collections.abc import Iterable

A, PTR, AAAA, OPT, IXFR, AXFR, ANY = 1, 12, 28, 41, 251, 252, 255
IN, ANY_CLASS = 1, 255
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16
HEADER = 12
MIN_UDP, MAX_UDP = 512, 1232
"""What every client takes in one datagram, and what crosses every link in one piece."""
_RESPONSE, _AUTHORITATIVE, _TRUNCATED, _RECURSIVE = 0x80, 0x04, 0x02, 0x80
_MAX_NAME = 255
_OPT = b"\0\0\x29" + MAX_UDP.to_bytes(2, "big")  # root, OPT, what we take; then rcode's upper bits, version, flags, no options


class Query:
    """A question that can be answered. `end`: where the question ends; `limit`: bytes that its sender takes in one datagram."""

    __slots__ = ("edns", "end", "kind", "limit", "name")

    def __init__(self, name: bytes, kind: int, end: int, limit: int, *, edns: bool) -> None:
        self.name, self.kind, self.end, self.limit, self.edns = name, kind, end, limit, edns


def read(data: bytes) -> Query | bytes | None:
    """The question of a query; the answer to one that is refused out of hand; None for what deserves no answer at all.

    No answer: what is too short to have an id, and answers, for two servers must never talk to each other without end.
    """
    if len(data) < HEADER or data[2] & _RESPONSE:
        return None
    if data[2] & 0x78:
        return refusal(data, NOTIMP)
    if data[4:10] != b"\0\1\0\0\0\0":
        return refusal(data, FORMERR)
    end = _name_end(data)
    if not end or len(data) < end + 4:
        return refusal(data, FORMERR)
    kind, class_ = int.from_bytes(data[end : end + 2], "big"), int.from_bytes(data[end + 2 : end + 4], "big")
    end += 4
    edns = data[end : end + 3] == b"\0\0\x29" and len(data) >= end + 11 and data[10:12] != b"\0\0"
    if edns and data[end + 6]:
        return _head(data, NOERROR, 0, 1) + data[HEADER:end] + _OPT + b"\1\0\0\0\0\0"  # BADVERS: 1 << 4
    if class_ not in (IN, ANY_CLASS) or kind in (AXFR, IXFR, OPT):
        return refusal(data, REFUSED)
    limit = min(MAX_UDP, max(MIN_UDP, int.from_bytes(data[end + 3 : end + 5], "big"))) if edns else MIN_UDP
    return Query(data[HEADER : end - 4].lower(), kind, end, limit, edns=edns)


def refusal(data: bytes, code: int) -> bytes:
    """An answer that is only a header. `data` holds at least a header."""
    return _head(data, code, 0, 0, questions=0)


def answer(data: bytes, query: Query, code: int, records: Iterable[bytes] = (), limit: int = 65535) -> bytes:
    """The answer with these records (`record`), as many as `limit` bytes hold; where some are left out it says so (TC)."""
    room = limit - query.end - (11 if query.edns else 0)
    count, body, truncated = 0, b"", 0
    for entry in records:
        if len(body) + len(entry) > room:
            truncated = _TRUNCATED
            break
        body += entry
        count += 1
    head = _head(data, code, count, 1 if query.edns else 0, flags=_AUTHORITATIVE | truncated)
    return head + data[HEADER : query.end] + body + (_OPT + bytes(6) if query.edns else b"")


def record(kind: int, payload: bytes) -> bytes:
    """A record of the name that was asked for. Its time to live is nothing: it is good for this one time (RFC 1035, 3.2.1)."""
    return b"\xc0\x0c" + kind.to_bytes(2, "big") + b"\0\1\0\0\0\0" + len(payload).to_bytes(2, "big") + payload


def failure(data: bytes, query: Query, code: int) -> bytes:
    """An answer without records, for a name that is not ours to know."""
    answered = answer(data, query, code)
    return answered[:2] + bytes((answered[2] & ~_AUTHORITATIVE,)) + answered[3:]


def answers(reply: bytes, query: bytes) -> bool:
    """Whether what a server sent is the answer to what it was sent: same id, same question (in any case), and an answer."""
    if len(reply) < HEADER or reply[:2] != query[:2] or not reply[2] & _RESPONSE:
        return False
    if reply[4:6] == b"\0\0":
        return code(reply) != NOERROR  # a refusal that is only a header
    end = _name_end(query) + 4
    return reply[4:6] == b"\0\1" and reply[HEADER:end].lower() == query[HEADER:end].lower()


def code(reply: bytes) -> int:
    """The response code of an answer."""
    return reply[3] & 0x0F


def encode(name: str) -> bytes:
    """A name as it is on the wire, in small letters. Raises ValueError for one that does not fit."""
    wire = b""
    for label in name.rstrip(".").lower().encode("utf-8", "surrogateescape").split(b"."):
        if not 0 < len(label) < 64:
            raise ValueError(f"{name!r} is not a name")
        wire += bytes((len(label),)) + label
    if len(wire) >= _MAX_NAME:
        raise ValueError(f"{name!r} is not a name")
    return wire + b"\0"


def reverse(address: bytes) -> bytes:
    """The name by which an address (4 or 16 bytes) is asked for: 2.0.30.172.in-addr.arpa."""
    if len(address) == 4:
        return encode(".".join(str(byte) for byte in reversed(address)) + ".in-addr.arpa")
    return encode(".".join(f"{byte & 15:x}.{byte >> 4:x}" for byte in reversed(address)) + ".ip6.arpa")


def address_of(name: bytes) -> bytes | None:
    """The address that a reverse name asks for; None for every other name."""
    labels = _labels(name)
    try:
        if labels[-2:] == [b"in-addr", b"arpa"] and len(labels) == 6:
            return pack(".".join(label.decode("ascii") for label in reversed(labels[:4])))
        if labels[-2:] == [b"ip6", b"arpa"] and len(labels) == 34 and all(len(label) == 1 for label in labels[:32]):
            return bytes.fromhex(b"".join(reversed(labels[:32])).decode("ascii"))
    except ValueError:
        pass
    return None


def pack(address: str) -> bytes:
    """The bytes of an address. Raises ValueError for one that is none."""
    try:
        return inet_pton(AF_INET6 if ":" in address else AF_INET, address)
    except OSError:
        raise ValueError(f"{address!r} is not an address") from None


def unpack(address: bytes) -> str:
    """The text of an address of 4 or 16 bytes, as recvfrom(2) tells it."""
    return inet_ntop(AF_INET if len(address) == 4 else AF_INET6, address)


def _head(data: bytes, code: int, records: int, additional: int, *, questions: int = 1, flags: int = 0) -> bytes:
    """The header of an answer to `data`: recursion is told as wanted, and as available."""
    bits = bytes((_RESPONSE | flags | data[2] & 0x79, _RECURSIVE | data[3] & 0x10 | code))
    return data[:2] + bits + questions.to_bytes(2, "big") + records.to_bytes(2, "big") + b"\0\0" + additional.to_bytes(2, "big")


def _name_end(data: bytes) -> int:
    """Where the first question's name ends; 0 for one that is cut off, too long, or refers to another place (there is none)."""
    at, size = HEADER, len(data)
    while at < size:
        length = data[at]
        at += length + 1
        if not length:
            return at if at - HEADER <= _MAX_NAME else 0
        if length > 63:
            return 0
    return 0


def _labels(name: bytes) -> list[bytes]:
    found, at = [], 0
    while name[at]:
        found.append(name[at + 1 : at + 1 + name[at]])
        at += name[at] + 1
    return found
