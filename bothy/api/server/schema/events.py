"""An event in the Docker Engine API's shape. Pure."""

from __future__ import annotations

from typing import Any

from bothy.engine.model import Event


def event(happened: Event) -> dict[str, Any]:
    """A line of `GET /events`; `status`, `id` and `from` are there for containers and images (up to API 1.51)."""
    data: dict[str, Any] = {}
    if happened.type in ("container", "image"):
        data = {"status": happened.action, "id": happened.actor}
        if happened.attributes.get("image"):
            data["from"] = happened.attributes["image"]
    return {
        **data,
        "Type": happened.type,
        "Action": happened.action,
        "Actor": {"ID": happened.actor, "Attributes": happened.attributes},
        "scope": "local",
        "time": happened.time_nano // 1_000_000_000,
        "timeNano": happened.time_nano,
    }
