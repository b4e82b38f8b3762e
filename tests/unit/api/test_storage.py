"""/volumes, /bothy/volumes and /bothy/snapshots: what is asked of the engine, and what is refused at the door."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bothy.errors import NotFound
from tests.unit.api.conftest import Door

_VOLUME = {"Name": "data"}


class Volumes:
    """Every method writes down what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        async def method(*args: Any, **kwargs: Any) -> Any:
            self.asked.append((name, *args, *kwargs.values()))
            if name == "get" and args == ("nope",):
                raise NotFound("get nope: no such volume")
            return {"snapshots": [_VOLUME], "remove": None, "remove_snapshot": None}.get(name, _VOLUME)

        return method


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "asked"),
    [
        ("POST", "/v1.47/volumes/create", {"Name": "data", "DriverOpts": {"size": "1g"}, "Labels": {"a": "b"}}, 201,
         ("create", "data", "local", {"a": "b"}, {"size": "1g"})),
        ("POST", "/volumes/create", {"Name": "data", "Driver": "rexray"}, 201, ("create", "data", "rexray", {}, {})),
        ("DELETE", "/volumes/data?force=1", {}, 204, ("remove", "data", True)),
        ("POST", "/bothy/volumes/data/rename", {"Name": "new"}, 200, ("rename", "data", "new")),
        ("POST", "/bothy/volumes/data/resize", {"Size": "20g"}, 200, ("resize", "data", "20g")),
        ("POST", "/bothy/volumes/data/clone", {"Name": "new", "Snapshot": "s", "Labels": {"a": "b"}}, 201,
         ("clone", "data", "new", "s", {"a": "b"})),
        ("POST", "/bothy/volumes/data/snapshots", {}, 201, ("snapshot", "data", "")),
        ("POST", "/bothy/volumes/data/snapshots", {"Name": "s"}, 201, ("snapshot", "data", "s")),
        ("POST", "/bothy/volumes/data/snapshots/s/restore", {}, 200, ("restore", "data", "s")),
        ("DELETE", "/bothy/volumes/data/snapshots/s", {}, 204, ("remove_snapshot", "data", "s")),
        ("GET", "/bothy/snapshots", {}, 200, ("snapshots", "")),
        ("GET", "/bothy/snapshots?volume=data", {}, 200, ("snapshots", "data")),
    ],
)  # fmt: skip
def test_what_is_asked(at_door, method, path, body, status, asked):
    async def scenario(door: Door) -> None:
        door.engine.volumes = Volumes()
        answered, _, _ = await door.ask(method, path, body)
        assert answered == status
        assert door.engine.volumes.asked == [asked]

    at_door(scenario)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("POST", "/bothy/volumes/data/rename", {}, 400, "invalid request: Name: missing"),
        ("POST", "/bothy/volumes/data/resize", {"Size": 7}, 400, "invalid request: Asked.Size: expected str, got int"),
        ("POST", "/bothy/volumes/data/clone", {"Labels": {"a": "b"}}, 400, "invalid request: Name: missing"),
        ("PUT", "/volumes/data", {"Spec": {}}, 503, "volume update only valid for cluster volumes, but swarm is unavailable"),
        ("PUT", "/volumes/nope", {}, 404, "get nope: no such volume"),
    ],
)
def test_what_is_refused(at_door, method, path, body, status, words):
    async def scenario(door: Door) -> None:
        door.engine.volumes = Volumes()
        answered, _, answer = await door.ask(method, path, body)
        assert (answered, json.loads(answer)["message"]) == (status, words)

    at_door(scenario)
