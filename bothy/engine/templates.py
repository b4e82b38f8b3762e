"""The engine's `templates`: the machine templates that were made, in the API's shapes."""

from __future__ import annotations

from typing import Any

from bothy.engine import times
from bothy.engine.hall import Hall
from bothy.engine.heavy import heavy
from bothy.machines.templates import Usage

_Listing = list[dict[str, Any]]
_Words = list[str]


class Templates:
    def __init__(self, hall: Hall) -> None:
        self._hall = hall

    async def list(self) -> _Listing:
        return [_shape(usage) for usage in await heavy(self._hall.templates.list)]

    async def remove(self, key: str) -> None:
        """Raises NotFound, Conflict (ambiguous). Machines that run keep what they have mapped."""
        await heavy(self._hall.templates.remove, key)

    async def prune(self) -> _Words:
        """Remove those whose inputs have changed; their keys."""
        keys, _ = await heavy(self._hall.templates.prune)
        return list(keys)


def _shape(usage: Usage) -> dict[str, Any]:
    return {
        "Key": usage.key,
        "Accelerator": usage.accelerator,
        "Vcpus": usage.vcpus,
        "Memory": usage.memory,
        "Kernel": usage.kernel,
        "Size": usage.size,
        "Created": times.rfc3339(int(usage.created * 1e9)),
        "Used": times.rfc3339(int(usage.used * 1e9)),
        "Current": usage.current,
    }
