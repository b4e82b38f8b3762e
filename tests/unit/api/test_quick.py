"""The quick way gives the same answers as the ordinary one, or none."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bothy.api.server import replies
from bothy.api.server.call import Context
from bothy.api.server.quick import Quick
from bothy.api.server.schema import containers as shape
from bothy.api.server.shown import Shown
from bothy.engine.model import Status, Workload
from bothy.errors import NotFound
from tests.unit.api.test_schema import workload


class Containers:
    def __init__(self, *found: Workload) -> None:
        self.found = found

    def list(self, **_: Any) -> list[Workload]:
        return list(self.found)

    def get(self, ref: str) -> Workload:
        for each in self.found:
            if ref in (each.id, each.name):
                return each
        raise NotFound(f"No such container: {ref}")


def quick(*found: Workload) -> Quick:
    engine = SimpleNamespace(containers=Containers(*found), execs=SimpleNamespace(running=lambda _: []))
    paths = SimpleNamespace(container=lambda identity: Path("/c") / identity)
    return Quick(cast(Context, SimpleNamespace(engine=engine, paths=paths, shown=Shown())))


def request(path: str, *more: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: localhost", *more, "", ""]).encode()


def body(answer: bytes | None) -> Any:
    assert answer is not None
    head, _, text = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert f"Content-Length: {len(text)}".encode() in head
    return json.loads(text)


def test_the_same_as_the_ordinary_way() -> None:
    one = workload(name="one", status=Status.RUNNING, started="2026-01-01T00:00:00.000000000Z")
    way = quick(one)
    for _ in range(2):  # made, then kept
        assert body(way.answer(request("/v1.41/containers/one/json"))) == shape.inspect(one, Path("/c") / one.id, [])
        now = time.time()
        assert body(way.answer(request("/containers/json", "Connection: keep-alive"))) == [shape.summary(one, now)]


def test_a_new_record_is_shown_at_once() -> None:
    shown, old, new = Shown(), workload(name="old"), workload(name="new")
    assert old.id == new.id
    for record in (old, new):
        assert json.loads(shown.inspect(record, Path("/c"), []))["Name"] == f"/{record.name}"
        assert json.loads(shown.listing([record], 0.0))[0]["Names"] == [f"/{record.name}"]
    assert json.loads(shown.inspect(new, Path("/c"), ["exec"]))["ExecIDs"] == ["exec"]


@pytest.mark.parametrize(
    "data",
    [
        request("/containers/nobody/json"),
        request("/containers/one/json?size=1"),
        request("/containers/json?all=1"),
        request("/v1.99/containers/json"),
        request("/v1.10/containers/json"),
        request("/containers/one/top"),
        request("/containers/one/json", "Connection: close"),
        request("/containers/one/json", "Connection: Upgrade", "Upgrade: tcp"),
        request("/containers/one/json", "Content-Length: 2") + b"{}",
        request("/containers/one/json", "Transfer-Encoding: chunked"),
        request("/containers/one/json") * 2,
        request("/containers/one/json")[:-1],
        b"GET /containers/one/json HTTP/1.1\r\n\r\n",
        b"GET /containers/one/json HTTP/1.0\r\nHost: x\r\n\r\n",
        b"POST /containers/one/json HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /containers/../json HTTP/1.1\r\nHost: x\r\n\r\n",
        b"",
    ],
)
def test_all_else_takes_the_ordinary_way(data: bytes) -> None:
    assert quick(workload(name="one")).answer(data) is None


def test_both_ways_have_the_same_headers() -> None:
    answer = quick(workload(name="one")).answer(request("/containers/one/json"))
    assert answer
    for name, value in replies.HEADERS.items():
        assert f"{name}: {value}\r\n".encode() in answer
