"""The functions of `templates`, and how Go prints and judges values."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def printed(value: Any) -> str:
    """A value as Go's %v: true, [a b], map[k:v], <no value>."""
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{printed(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, (list, tuple)):
        return "[" + " ".join(map(printed, value)) + "]"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def truth(value: Any) -> bool:
    """Go's: false, 0, nil and what is empty are false."""
    return bool(value)


def as_json(value: Any) -> str:
    """A value as JSON on one line."""
    from bothy import quickjson

    return quickjson.dumps(value)


def index(value: Any, *keys: Any) -> Any:
    """`index map "key"`, `index list 0`, and deeper; nothing for a key that a map has not."""
    for key in keys:
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, (list, tuple, str)) and isinstance(key, int):
            if not 0 <= key < len(value):
                raise IndexError(f"index {key} is out of range, there are {len(value)}")
            value = value[key]
        elif value is None:
            return None
        else:
            raise TypeError(f"can not index {printed(value)!r} with {key!r}")
    return value


def printf(form: str, *values: Any) -> str:
    """Go's Printf for %s %v %d %q %x %f %t %% with flags, width and precision."""
    queue, told, at = list(values), "", 0
    while at < len(form):
        if form[at] != "%":
            told += form[at]
            at += 1
            continue
        end = at + 1
        while end < len(form) and form[end] in "-+ #0123456789.":
            end += 1
        if end == len(form):
            raise ValueError(f"{form!r} ends within a verb")
        flags, verb = form[at + 1 : end], form[end]
        at = end + 1
        if verb == "%":
            told += "%"
            continue
        if not queue:
            raise ValueError(f"{form!r} has more verbs than there are values")
        told += _formatted(flags, verb, queue.pop(0))
    return told


def _formatted(flags: str, verb: str, value: Any) -> str:
    if verb in "sv":
        return f"%{flags}s" % printed(value)
    if verb == "q":
        return f"%{flags}s" % as_json(printed(value))
    if verb == "t":
        return f"%{flags}s" % printed(bool(value))
    if verb in "dxXofeg" and isinstance(value, (int, float)):
        return f"%{flags}{verb}" % value
    raise ValueError(f"%{verb} does not fit {printed(value)!r}")


def compare(test: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    """A comparison that refuses values of different kinds, as Go's."""

    def checked(a: Any, b: Any) -> bool:
        if not (isinstance(a, (int, float)) and isinstance(b, (int, float))) and type(a) is not type(b):
            raise TypeError(f"can not compare {printed(a)!r} with {printed(b)!r}")
        return test(a, b)

    return checked


def _and(*values: Any) -> Any:
    for value in values:
        if not truth(value):
            return value
    return values[-1]


def _or(*values: Any) -> Any:
    for value in values:
        if truth(value):
            return value
    return values[-1]


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": as_json,
    "index": index,
    "len": lambda value: len(value or ()),
    "print": lambda *values: " ".join(map(printed, values)),
    "println": lambda *values: " ".join(map(printed, values)) + "\n",
    "printf": printf,
    "join": lambda values, separator: str(separator).join(map(printed, values or ())),
    "split": lambda text, separator: str(text).split(separator),
    "upper": lambda text: str(text).upper(),
    "lower": lambda text: str(text).lower(),
    "title": lambda text: str(text).title(),
    "truncate": lambda text, length: str(text)[:length],
    "pad": lambda text, before, after: " " * before + str(text) + " " * after,
    "eq": lambda value, *others: any(value == other for other in others),
    "ne": lambda a, b: a != b,
    "lt": compare(lambda a, b: a < b),
    "le": compare(lambda a, b: a <= b),
    "gt": compare(lambda a, b: a > b),
    "ge": compare(lambda a, b: a >= b),
    "and": _and,
    "or": _or,
    "not": lambda value: not truth(value),
}
