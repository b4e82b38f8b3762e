"""Strategies for what a stranger may send to the engine's socket: JSON of the API's types with wrong values in it, odd texts."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from bothy.jsonable import pascal

TEXTS = (
    "", " ", "0", "-1", "1", "true", "none", "host", "bridge", "default", "private", "shareable", "container:", "container:x", "vm",
    "runc", "/", "/odd", "/odd/../..", "..", ".", "a/b", "a:b", "a:b:c:d", ":", "=", "a=b", "=b", "80/tcp", "80", "0-70000/udp",
    "9-8", "unlimited", "unless-stopped", "é", "日本", "\0", "a\0b", "\n", "a\nb: c", "\ud800", "\udcff", "x" * 5000, "%00", "%2e%2e",
    "%ff", "1.2.3.4", "256.1.1.1", "::1", "fe80::1%eth0", "10.0.0.0/8", "10.255.0.0/33", "fd00::/64", "02:42:ac:11:00:02", "ff:ff",
    "SIGKILL", "SIGRTMIN+99", "1s", "-1h", "2020-01-01T00:00:00Z", "9" * 30, "9" * 5000, "1e400", "nan", "0x10", "²", "٣", "json-file",
    "local", "a" * 64, "ALL", "CAP_NO", "no-new-privileges", "seccomp={", "seccomp=unconfined", "apparmor=", "0-3", "0,x", "1024k",
    "size=1", "mode=9999", "rw", "ro,z", "c 1:3 rwm", "a *:* rwm", "kernel.nothing", "net.ipv4.nothing", "nofile", "root:nobody",
    "4294967296:0", "-5", "CMD-SHELL", "NONE",
)  # fmt: skip
NUMBERS = (0, 1, -1, 2, 64, 65535, 65536, 1 << 22, (1 << 31) - 1, 1 << 31, (1 << 63) - 1, 1 << 63, 1 << 64, -(1 << 70), 10**40)
LOOSE_KEYS = (
    "IPv4Address", "IPv6Address", "LinkLocalIPs", "Propagation", "NonRecursive", "ReadOnlyNonRecursive", "CreateMountpoint",
    "Subpath", "NoCopy", "Labels", "DriverConfig", "Name", "Options", "SizeBytes", "Mode", "Path", "Weight", "Driver", "Count",
    "Capabilities", "DeviceIDs", "80/tcp", "/odd",
)  # fmt: skip


def texts() -> st.SearchStrategy[str]:
    """Texts of the kinds the API has, and texts of no kind."""
    return st.sampled_from(TEXTS) | st.text(max_size=20)


def numbers() -> st.SearchStrategy[Any]:
    """Whole numbers within and beyond what fits."""
    return st.sampled_from(NUMBERS) | st.integers(-10, 200)


def _deep(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def junk() -> st.SearchStrategy[Any]:
    """Values of any JSON type."""
    plain = st.none() | st.booleans() | numbers() | st.sampled_from((1.5, -0.0, 1e300)) | texts()
    nested = st.recursive(
        plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts(), inner, max_size=3), max_leaves=5
    )
    return nested | st.just(_deep(100))


def like(kind: Any) -> st.SearchStrategy[Any]:
    """JSON for a type of the API's, one time in twelve (at each place) of another type."""
    return st.integers(0, 11).flatmap(lambda chance: junk() if chance == 0 else _right(kind))


def _right(kind: Any) -> st.SearchStrategy[Any]:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return record(typing.cast(type, kind))
    if origin in (typing.Union, types.UnionType):
        return st.none() | like(next(a for a in args if a is not type(None)))
    if origin is list:
        return st.lists(like(args[0]), max_size=3)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if args[1] is Any:
            return st.dictionaries(st.sampled_from(LOOSE_KEYS) | texts(), junk(), max_size=3)
        return st.dictionaries(texts(), like(args[1]), max_size=3)
    scalars: dict[Any, st.SearchStrategy[Any]] = {str: texts(), int: numbers(), bool: st.booleans()}
    return scalars.get(kind, junk())


def record(cls: type, *, without: tuple[str, ...] = ()) -> st.SearchStrategy[dict[str, Any]]:
    """An object with up to four of a dataclass's fields, by the API's names."""
    hints = typing.get_type_hints(cls)
    kinds = {f.metadata.get("api") or pascal(f.name): hints[f.name] for f in dataclasses.fields(cls)}
    names = [name for name in kinds if name not in without]
    chosen = st.lists(st.sampled_from(names), max_size=4, unique=True)
    return chosen.flatmap(lambda some: st.fixed_dictionaries({name: like(kinds[name]) for name in some}))


def encoded(values: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    """Bodies: mostly JSON of the values, sometimes what is none."""
    broken = st.sampled_from(
        (b"", b"{", b"null", b"[]", b'"x"', b"\xff\xfe", b"[" * 100_000, b'{"a":' * 50_000, b"NaN", b"9" * 5000)
    )
    return st.integers(0, 9).flatmap(lambda chance: broken if chance == 0 else values.map(lambda value: json.dumps(value).encode()))


def filters() -> st.SearchStrategy[str]:
    """The parameter `filters`: in both of its forms, with values that make no sense, and what is no JSON."""
    words = st.sampled_from((
        "label", "label!", "id", "name", "status", "exited", "before", "since", "until", "ancestor", "network", "volume", "health",
        "publish", "expose", "isolation", "is-task", "dangling", "reference", "driver", "scope", "type", "event", "image", "all",
        "container", "daemon", "nothing",
    ))  # fmt: skip
    values = st.lists(texts(), max_size=2) | st.dictionaries(texts(), st.booleans() | junk(), max_size=2) | junk()
    return st.dictionaries(words | texts(), values, max_size=2).map(json.dumps) | junk().map(json.dumps) | texts()
