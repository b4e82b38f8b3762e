"""From a method and a path to a handler: an explicit list of routes, tried per first segment of the path.

`{name}` in a pattern is one segment, `{name:path}` one or more of them (names of images have slashes).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from aiohttp.web_response import StreamResponse

    from bothy.api.server.call import Call

Handler = Callable[["Call"], Awaitable["StreamResponse"]]

_PARAMETER = re.compile(r"\{(\w+)(:path)?\}")


@dataclass(frozen=True)
class Route:
    """An endpoint: `pattern` without a version, parameters in braces."""

    method: str
    pattern: str
    handler: Handler


def _compile(pattern: str) -> re.Pattern[str]:
    parts, at = [], 0
    for match in _PARAMETER.finditer(pattern):
        parts += [re.escape(pattern[at : match.start()]), f"(?P<{match[1]}>{'.+' if match[2] else '[^/]+'})"]
        at = match.end()
    return re.compile("".join(parts) + re.escape(pattern[at:]))


class Router:
    """All routes, compiled once."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._by_noun: dict[str, list[tuple[re.Pattern[str], str, Handler]]] = {}
        for route in routes:
            noun = route.pattern.split("/", 2)[1]
            self._by_noun.setdefault(noun, []).append((_compile(route.pattern), route.method, route.handler))

    def find(self, method: str, path: str) -> tuple[Handler | None, dict[str, str], bool]:
        """The handler of a path (without version) and its parameters, unquoted; None, and whether another method would do."""
        known = False
        for pattern, verb, handler in self._by_noun.get(path.split("/", 2)[1] if "/" in path else "", ()):
            match = pattern.fullmatch(path)
            if match is None:
                continue
            if verb == method:
                return handler, {key: unquote(value) for key, value in match.groupdict().items()}, True
            known = True
        return None, {}, known
