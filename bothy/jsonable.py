"""Frozen dataclasses to JSON and back, the one way plans, records and API bodies cross a process, a disk or the door.

Two codecs differ in the names they give to fields: `PLAIN` writes camelCase (plans, records, OCI documents; exceptions by
`field(metadata={"json": "hostID"})`), `API` writes PascalCase (the Docker Engine API; exceptions by
`field(metadata={"api": "OomScoreAdj"})`).

Reading: unknown keys are ignored, null is as good as absent, a value of the wrong type raises `ValueError` naming the path to it.
Writing: fields that are None are left out. Standard library only: the keeper and the guest read their plans with this.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")
Reader = Callable[[Any, str], Any]
_SCALARS = (str, int, bool, float, type(None))


def camel(name: str) -> str:
    """`max_size` becomes `maxSize`."""
    head, *rest = name.split("_")
    return head + "".join(part.title() for part in rest)


def pascal(name: str) -> str:
    """`max_size` becomes `MaxSize`."""
    return "".join(part.title() for part in name.split("_"))


class Codec:
    """One way to name fields in JSON. Readers are built once a type and kept."""

    def __init__(self, naming: Callable[[str], str], key: str) -> None:
        self._naming = naming
        self._key = key
        self._known_fields: dict[type, tuple[tuple[str, str, Any, bool], ...]] = {}
        self._readers: dict[Any, Reader] = {}

    def to_data(self, value: Any) -> Any:
        """Plain dicts, lists and scalars of a dataclass (or of a container of them)."""
        kind = type(value)
        if kind in _SCALARS:
            return value
        fields = self._known_fields.get(kind)
        if fields is None and dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = self._fields(kind)
        if fields is not None:
            pairs = ((key, getattr(value, name)) for name, key, _, _ in fields)
            return {key: self.to_data(v) for key, v in pairs if v is not None}
        if isinstance(value, enum.Enum):
            return value.value
        if isinstance(value, Mapping):
            return {str(k): self.to_data(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.to_data(v) for v in value]
        return value

    def dumps(self, value: Any) -> str:
        """`to_data` as one line of JSON."""
        return json.dumps(self.to_data(value), separators=(",", ":"))

    def from_data(self, cls: type[T], data: Any, path: str = "") -> T:
        """A `cls` of plain data; the inverse of `to_data`. Raises ValueError naming the path of what does not fit."""
        return typing.cast(T, self._reader(cls)(data, path or cls.__name__))

    def loads(self, cls: type[T], text: str | bytes) -> T:
        """A `cls` of a JSON text. Raises ValueError for malformed JSON and for wrong types."""
        return self.from_data(cls, json.loads(text))

    def _fields(self, cls: type) -> tuple[tuple[str, str, Any, bool], ...]:
        """(name, key, type, required) of every field of a dataclass."""
        if cls not in self._known_fields:
            hints = typing.get_type_hints(cls)
            missing = dataclasses.MISSING
            self._known_fields[cls] = tuple(
                (
                    f.name,
                    f.metadata.get(self._key) or self._naming(f.name),
                    hints[f.name],
                    f.default is missing and f.default_factory is missing,
                )
                for f in dataclasses.fields(cls)
                if f.init
            )
        return self._known_fields[cls]

    def _reader(self, kind: Any) -> Reader:
        """A function that checks and converts data of the given type."""
        if kind not in self._readers:
            self._readers[kind] = self._make_reader(kind)
        return self._readers[kind]

    def _make_reader(self, kind: Any) -> Reader:
        origin, args = typing.get_origin(kind), typing.get_args(kind)
        if kind is Any or kind is object:
            return lambda data, path: data
        if dataclasses.is_dataclass(kind):
            return self._dataclass_reader(typing.cast(type, kind))
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            return _enum_reader(kind)
        if origin in (typing.Union, types.UnionType):
            return self._optional_reader(args)
        if origin in (list, tuple):
            return self._sequence_reader(origin, args[0])
        if isinstance(origin, type) and issubclass(origin, Mapping):
            return self._mapping_reader(args[1])
        if kind in (str, int, float, bool):
            return _scalar_reader(kind)
        raise TypeError(f"no JSON form for {kind!r}")

    def _dataclass_reader(self, cls: type) -> Reader:
        def read(data: Any, path: str) -> Any:
            if not isinstance(data, dict):
                raise ValueError(f"{path}: expected an object, got {type(data).__name__}")
            values = {}
            for name, key, kind, required in self._fields(cls):
                if data.get(key) is not None:
                    values[name] = self._reader(kind)(data[key], f"{path}.{key}")
                elif required:
                    raise ValueError(f"{path}.{key}: missing")
            return cls(**values)

        return read

    def _optional_reader(self, args: tuple[Any, ...]) -> Reader:
        kinds = [a for a in args if a is not type(None)]
        if len(kinds) != 1:
            raise TypeError(f"no JSON form for a union of {kinds}")
        inner = self._reader(kinds[0])
        return lambda data, path: None if data is None else inner(data, path)

    def _sequence_reader(self, make: Any, kind: Any) -> Reader:
        inner = self._reader(kind)

        def read(data: Any, path: str) -> Any:
            if not isinstance(data, list):
                raise ValueError(f"{path}: expected a list, got {type(data).__name__}")
            return make(inner(v, f"{path}[{i}]") for i, v in enumerate(data))

        return read

    def _mapping_reader(self, kind: Any) -> Reader:
        inner = self._reader(kind)

        def read(data: Any, path: str) -> Any:
            if not isinstance(data, dict):
                raise ValueError(f"{path}: expected an object, got {type(data).__name__}")
            return {str(k): inner(v, f"{path}.{k}") for k, v in data.items()}

        return read


def _enum_reader(cls: type[enum.Enum]) -> Reader:
    def read(data: Any, path: str) -> Any:
        try:
            return cls(data)
        except ValueError as exc:
            raise ValueError(f"{path}: {exc}") from None

    return read


def _scalar_reader(kind: type) -> Reader:
    def read(data: Any, path: str) -> Any:
        if kind is float and isinstance(data, int) and not isinstance(data, bool):
            return float(data)
        if not isinstance(data, kind) or (kind is int and isinstance(data, bool)):
            raise ValueError(f"{path}: expected {kind.__name__}, got {type(data).__name__}")
        return data

    return read


PLAIN = Codec(camel, "json")
API = Codec(pascal, "api")
