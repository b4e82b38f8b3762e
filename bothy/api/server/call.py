"""A request as a handler sees it: the path's parameters, the query with Docker's readings, the body typed at the door.

Everything wrong with a request ends here, as `Invalid` naming the field: behind this module values have the types they claim.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import parse_qsl

from aiohttp.web_exceptions import HTTPRequestEntityTooLarge

from bothy.api.server.shown import Shown
from bothy.errors import Invalid
from bothy.jsonable import API

if TYPE_CHECKING:
    from aiohttp.web_request import BaseRequest

    from bothy.api.server.backend import Backend
    from bothy.api.server.connection import ApiConnection
    from bothy.paths import Paths

T = TypeVar("T")
Version = tuple[int, int]
Filters = dict[str, list[str]]

_FALSE = frozenset({"", "0", "no", "false", "none"})
# Fields that Docker takes as a string or as a list of them.
_WORDS = ("Cmd", "Entrypoint", "Shell")


@dataclass(frozen=True)
class Context:
    """What all handlers share."""

    engine: Backend
    paths: Paths
    shown: Shown = field(default_factory=Shown)


class Call:
    """One request, its path's parameters, and the API version it speaks."""

    __slots__ = ("_query", "context", "params", "request", "version")

    def __init__(self, request: BaseRequest, params: Mapping[str, str], version: Version, context: Context) -> None:
        self.request = request
        self.params = params
        self.version = version
        self.context = context
        self._query: dict[str, list[str]] | None = None

    @property
    def engine(self) -> Backend:
        """The use cases."""
        return self.context.engine

    @property
    def connection(self) -> ApiConnection:
        """The client's connection, for what HTTP has no words for."""
        return cast("ApiConnection", self.request.protocol)

    # The query

    def values(self, name: str) -> list[str]:
        """All values of a parameter, in order."""
        if self._query is None:
            self._query = {}
            for key, value in parse_qsl(self.request.raw_path.partition("?")[2], keep_blank_values=True):
                self._query.setdefault(key, []).append(value)
        return self._query.get(name, [])

    def text(self, name: str, default: str = "") -> str:
        """A parameter's first value."""
        values = self.values(name)
        return values[0] if values else default

    def required(self, name: str) -> str:
        """A parameter that must be there and not empty. Raises Invalid."""
        if not (value := self.text(name)):
            raise Invalid(f"parameter '{name}' is missing")
        return value

    def flag(self, name: str, *, default: bool = False) -> bool:
        """A boolean in Docker's reading: everything but nothing, 0, no, false and none is true."""
        values = self.values(name)
        return values[0].strip().lower() not in _FALSE if values else default

    def integer(self, name: str) -> int | None:
        """A whole number, None where it is not given. Raises Invalid."""
        text = self.text(name)
        if not text:
            return None
        try:
            return int(text)
        except ValueError:
            raise Invalid(f"parameter '{name}': {text!r} is not a number") from None

    def filters(self) -> Filters:
        """The `filters` parameter in either of its forms, `{"label": ["a"]}` or `{"label": {"a": true}}`. Raises Invalid."""
        text = self.text("filters")
        if not text:
            return {}
        return read_filters(_parsed(text, "parameter 'filters'"))

    # The body

    async def body(self) -> bytes:
        """The whole body. Raises Invalid for one beyond all measure."""
        try:
            return await self.request.read()
        except HTTPRequestEntityTooLarge:
            raise Invalid("the request's body is too large") from None

    async def data(self) -> dict[str, Any]:
        """The body's JSON object, empty for an empty body. Raises Invalid."""
        body = await self.body()
        if not body.strip():
            return {}
        data = _parsed(body, "the request's body")
        if data is None:
            return {}
        if not isinstance(data, dict):
            raise Invalid(f"the request's body: expected an object, got {type(data).__name__}")
        return data

    async def typed(self, cls: type[T], data: dict[str, Any] | None = None) -> T:
        """The body (or `data`) as a dataclass. Raises Invalid naming the field that does not fit."""
        return read(cls, await self.data() if data is None else data)


def _parsed(text: str | bytes, what: str) -> Any:
    """The value of a JSON text. Raises Invalid naming `what` for one that is none or is nested beyond all measure."""
    try:
        return json.loads(text)
    except ValueError as exc:
        raise Invalid(f"{what} is not JSON: {exc}") from None
    except RecursionError:
        raise Invalid(f"{what} is nested too deeply") from None


def read(cls: type[T], data: Mapping[str, Any], path: str = "") -> T:
    """A dataclass of the API's JSON. Raises Invalid naming the field that does not fit."""
    words = {key: [data[key]] for key in _WORDS if isinstance(data.get(key), str)}
    try:
        return API.from_data(cls, {**data, **words}, path)
    except ValueError as exc:
        raise Invalid(f"invalid request: {exc}") from None


def read_filters(data: Any) -> Filters:
    """Filters from their JSON. Raises Invalid."""
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise Invalid("parameter 'filters': expected an object")
    filters: Filters = {}
    for word, values in data.items():
        if isinstance(values, dict):
            values = [value for value, wanted in values.items() if wanted]
        if not isinstance(values, list) or not all(isinstance(v, str) for v in values):
            raise Invalid(f"parameter 'filters': {word}: expected a list of texts")
        filters[word] = values
    return filters
