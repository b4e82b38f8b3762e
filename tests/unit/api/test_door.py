"""What every request goes through: versions, headers, errors, the query, bodies."""

from __future__ import annotations

import asyncio
import json

import pytest

from bothy import errors
from bothy.api.server import errors as table
from bothy.api.server.app import refuse_version
from bothy.api.server.call import read, read_filters
from bothy.api.server.connection import request_length
from bothy.api.server.replies import API_VERSION
from bothy.api.server.router import Router
from bothy.api.server.routes.table import ROUTES
from bothy.engine.model import Config, HostConfig
from bothy.errors import Invalid
from tests.unit.api.conftest import Door, read_head
from tests.unit.api.double import ID, workload


def test_every_category_has_a_status():
    assert set(table.STATUS) == set(errors.CATEGORIES)
    for kind in errors.CATEGORIES:
        assert table.status_of(kind("m")) == table.STATUS[kind]

    class Narrower(errors.NotFound):
        pass

    assert table.status_of(Narrower("m")) == 404


def test_a_program_that_can_not_run_is_the_callers_mistake():
    missing = errors.Broken("exec 'x': No such file or directory", stage="exec", errno=2, hint="check it")
    assert table.status_of(missing) == 400
    assert table.body_of(missing) == {
        "message": "exec 'x': no such file or directory",
        "hint": "check it",
        "stage": "exec",
        "errno": 2,
    }
    assert table.status_of(errors.Broken("m", stage="mounts", errno=2)) == 500
    assert table.body_of(errors.NotFound("m")) == {"message": "m"}


@pytest.mark.parametrize(
    ("version", "words"), [((1, 23), "too old"), ((1, 24), ""), (API_VERSION, ""), ((1, 99), "too new"), ((2, 0), "too new")]
)
def test_versions_outside_the_range_are_refused(version, words):
    refusal = refuse_version(version)
    assert words in refusal
    assert bool(refusal) == bool(words)


def test_every_route_is_reachable():
    """No pattern hides another: each one's own example comes back to its handler."""
    router = Router(ROUTES)
    for route in ROUTES:
        path = route.pattern.replace("{id}", "x").replace("{name}", "x").replace("{key}", "x")
        path = path.replace("{name:path}", "a/b").replace("{rest:path}", "a/b")
        handler, _, known = router.find(route.method, path)
        assert (handler, known) == (route.handler, True), route


@pytest.mark.parametrize(
    ("head", "length"),
    [
        (b"", None),
        (b"PO", None),
        (b"GET /", 0),
        (b"POST /containers/x/attach HTTP/1.1\r\nHost: x\r\n", None),
        (b"POST /containers/x/attach HTTP/1.1\r\nHost: x\r\n\r\nabc", 47),
        (b"POST /v1.47/exec/x/start?a=b HTTP/1.1\r\ncontent-LENGTH:  5 \r\n\r\n", 67),
        (b"POST /containers/x/start HTTP/1.1\r\nHost: x\r\n\r\n", 0),
        (b"POST /containers/x/attach HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 0),
        (b"POST " + b"x" * 70000, 0),
    ],
)
def test_the_gate_knows_requests_that_can_be_hijacked(head, length):
    assert request_length(head) == length


def test_ping_has_dockers_headers(at_door):
    async def scenario(door: Door) -> None:
        for method, path in (("GET", "/_ping"), ("HEAD", "/_ping"), ("GET", "/v1.24/_ping")):
            status, headers, body = await door.ask(method, path)
            assert (status, body) == (200, b"" if method == "HEAD" else b"OK")
            assert headers["api-version"] == "{}.{}".format(*API_VERSION)
            assert headers["ostype"] == "linux"
            assert headers["docker-experimental"] == "false"
            assert headers["server"].startswith("bothy/")
            assert headers["builder-version"] == "1"

    at_door(scenario)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/v1.47/containers/x/nothing", 404),
        ("PUT", "/containers/json", 405),
        ("GET", "/v1.99/info", 400),
        ("GET", "/v1.1/info", 400),
        ("GET", "/swarm", 503),
        ("GET", "/v1.40/services/abc", 503),
        ("POST", "/images/create?fromImage=nginx&tag=latest", 501),
        ("POST", "/build", 501),
        ("POST", "/containers/x/kill", 409),
        ("GET", "/containers/nobody/json", 404),
        ("GET", "/version", 500),
        ("GET", "/containers/json?filters=%7B", 400),
        ("GET", "/containers/json?limit=many", 400),
        ("GET", "/events?filters=%7B%22nonsense%22%3A%5B%22a%22%5D%7D", 400),
        ("GET", "/events?since=20&until=10", 400),
        ("POST", "/containers/x/rename", 400),
        ("POST", "/containers/x/resize?h=1", 400),
        ("POST", "/containers/create", 400),
    ],
)
def test_errors_are_json_with_a_message(at_door, method, path, status):
    async def scenario(door: Door) -> None:
        got, headers, body = await door.ask(method, path)
        assert got == status
        assert headers["content-type"] == "application/json"
        assert json.loads(body)["message"]
        assert headers["api-version"]

    at_door(scenario)


def test_bytes_that_are_not_http_are_refused(at_door):
    async def scenario(door: Door) -> None:
        reader, writer = await door.open()
        writer.write(b"\x16\x03\x01 not http\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.0 400")
        writer.close()

    at_door(scenario)


def test_a_pull_is_told_what_to_do_instead(at_door):
    async def scenario(door: Door) -> None:
        _, _, body = await door.ask("POST", "/images/create?fromImage=library/nginx&tag=1.25")
        told = json.loads(body)
        assert "library/nginx:1.25" in told["message"]
        assert "bothy load" in told["hint"]
        assert "bothy load" not in told["message"]
        _, _, body = await door.ask("POST", "/v1.47/images/create?fromImage=library/nginx&tag=1.25")
        assert "bothy load" in json.loads(body)["message"]

    at_door(scenario)


def test_what_is_unchanged_has_no_body(at_door):
    async def scenario(door: Door) -> None:
        door.engine.containers.records[ID] = workload()
        assert (await door.ask("POST", f"/containers/{ID}/start"))[0] == 204
        status, _, body = await door.ask("POST", f"/containers/{ID}/start")
        assert (status, body) == (304, b"")

    at_door(scenario)


def test_half_closed_clients_are_answered(at_door):
    async def scenario(door: Door) -> None:
        reader, writer = await door.open()
        writer.write(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
        writer.write_eof()
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 200")
        assert answer.endswith(b"OK")
        writer.close()

    at_door(scenario)


def test_half_closed_listeners_are_noticed_when_they_go(at_door):
    async def scenario(door: Door) -> None:
        reader, writer = await door.open()
        writer.write(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
        writer.write_eof()
        await reader.readuntil(b"\r\n\r\n")
        assert door.engine.events.listening == 1
        writer.close()
        while door.engine.events.listening:
            await asyncio.sleep(0.001)

    at_door(scenario)


def test_a_body_that_breaks_off_ends_the_connection(at_door):
    async def scenario(door: Door) -> None:
        reader, writer = await door.open()
        writer.write(b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        writer.write_eof()
        await reader.read()
        writer.close()
        assert door.engine.containers.created == []

    at_door(scenario)


def test_continue_is_said_to_who_waits_for_it(at_door):
    async def scenario(door: Door) -> None:
        reader, writer = await door.open()
        writer.write(b"POST /images/load HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"tar")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
        writer.close()

    at_door(scenario)


def test_requests_in_a_row_are_answered_in_order(at_door):
    async def scenario(door: Door) -> None:
        reader, writer = await door.open()
        writer.write(
            b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\nGET /info HTTP/1.1\r\nHost: x\r\n\r\nHEAD /_ping HTTP/1.1\r\nHost: x\r\n\r\n"
        )
        for body in (b"OK", b'{"OSType":"linux"}\n', b""):
            status, headers = await read_head(reader)
            assert status == 200
            assert await reader.readexactly(len(body)) == body
            assert body == b"" or headers["content-length"] == str(len(body))
        writer.close()

    at_door(scenario)


@pytest.mark.parametrize(
    ("data", "filters"),
    [
        (None, {}),
        ({"label": ["a=b", "c"]}, {"label": ["a=b", "c"]}),
        ({"status": {"running": True, "exited": False}}, {"status": ["running"]}),
    ],
)
def test_filters_have_two_forms(data, filters):
    assert read_filters(data) == filters


@pytest.mark.parametrize("data", [[], "a", {"label": "a"}, {"label": [1]}])
def test_filters_of_other_forms_are_refused(data):
    with pytest.raises(Invalid, match="filters"):
        read_filters(data)


def test_bodies_are_typed_at_the_door():
    config = read(Config, {"Cmd": "sh", "Entrypoint": ["a"], "Env": None, "Unknown": 1}, "Config")
    assert (config.cmd, config.entrypoint, config.env) == (["sh"], ["a"], [])
    with pytest.raises(Invalid, match=r"HostConfig\.Memory: expected int"):
        read(HostConfig, {"Memory": "lots"}, "HostConfig")
    with pytest.raises(Invalid, match=r"HostConfig\.Mounts\[0\]\.Target: expected str"):
        read(HostConfig, {"Mounts": [{"Target": 5}]}, "HostConfig")


def test_what_is_no_http_is_told_so_in_dockers_form_and_not_to_the_log(at_door, caplog):
    async def scenario(door: Door) -> None:
        reader, writer = await door.open()
        writer.write(b"nonsense\r\n\r\n")
        status, headers = await read_head(reader)
        body = json.loads(await reader.read())
        writer.close()
        await writer.wait_closed()
        assert (status, headers["content-type"].partition(";")[0]) == (400, "application/json")
        assert body["message"].startswith("malformed request")

    at_door(scenario)
    assert not caplog.records
