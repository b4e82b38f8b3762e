"""Every endpoint is asked odd things: each answer has Docker's form, none is the engine's own fault, and nothing is left behind.

The examples are the same in every run. What would end the engine, fetch from afar or touch the host is left out, by endpoint or by value.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bothy.api.server.router import Route
from bothy.api.server.routes.bothy import Bootstrap
from bothy.api.server.routes.execs import ExecStart
from bothy.api.server.routes.networks import Connect, Create, Ports
from bothy.api.server.routes.secrets import Asked as SecretAsked
from bothy.api.server.routes.storage import Asked as StorageAsked
from bothy.api.server.routes.table import ROUTES, SWARM
from bothy.api.server.routes.volumes import VolumeCreate
from bothy.engine.model import Config, ExecRequest, HostConfig, NetworkingConfig
from bothy.paths import Paths
from tests.support import odd
from tests.support.engine import TestEngine
from tests.support.sessions import busybox_engine, settling

pytestmark = pytest.mark.timeout(120)

# It ends; they ask the network, which the machine that runs the tests need not have.
LEFT_OUT = {"/bothy/shutdown", "/images/search", "/auth", "/distribution/{name:path}/json"}
OUT_OF_REACH = ("Privileged", "Binds", "Mounts", "Devices", "DeviceCgroupRules", "VolumesFrom", "ContainerIDFile", "CgroupParent")
HEAD = b"\r\n\r\n"
RUNNING, CREATED, NETWORK, VOLUME, SECRET = "fuzz-running", "fuzz-created", "fuzz-network", "fuzz-volume", "fuzz-secret"
BODIES: dict[str, st.SearchStrategy[bytes]] = {
    "/commit": odd.encoded(odd.record(Config)),
    "/containers/{id}/exec": odd.encoded(odd.record(ExecRequest)),
    "/containers/{id}/update": odd.encoded(odd.record(HostConfig)),
    "/exec/{id}/start": odd.encoded(odd.record(ExecStart)),
    "/networks/create": odd.encoded(odd.record(Create)),
    "/networks/{id}/connect": odd.encoded(odd.record(Connect)),
    "/networks/{id}/disconnect": odd.encoded(odd.record(Connect)),
    "/volumes/create": odd.encoded(odd.record(VolumeCreate, without=("DriverOpts",))),
    "/bothy/containers/{id}/ports": odd.encoded(odd.record(Ports)),
    "/bothy/images/bootstrap": odd.encoded(odd.record(Bootstrap)),
    "/bothy/secrets/create": odd.encoded(odd.record(SecretAsked)),
}
PARAMETERS = (
    "all", "limit", "size", "filters", "signal", "name", "platform", "v", "force", "h", "w", "ps_args", "condition", "stdout",
    "stderr", "stdin", "stream", "logs", "tail", "since", "until", "follow", "timestamps", "detachKeys", "one-shot", "path",
    "noOverwriteDirNonDir", "copyUIDGID", "as", "repo", "tag", "container", "comment", "author", "pause", "changes", "fromSrc",
    "names", "noprune", "quiet", "message", "link", "port", "ip", "host", "volume", "digests", "shared-size", "manifests", "type",
)  # fmt: skip


class Door:
    """The engine's socket, one connection a request, its answer's head and (if its length was told) its body."""

    def __init__(self, engine: TestEngine) -> None:
        self.path = str(engine.run_folder / "bothy.sock")
        self.log = Paths(engine.root, engine.run_folder).run / "daemon.log"
        self.ids: dict[str, list[str]] = {}

    def ask(self, method: str, target: str, body: bytes = b"", extra: str = "") -> tuple[int, bytes | None]:
        """Status and body; endless answers are cut after the head, and their body is None."""
        head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(30)
            sock.connect(self.path)
            sock.sendall(head.encode() + body)
            got = b""
            while HEAD not in got and (data := sock.recv(65536)):
                got += data
            raw, _, rest = got.partition(HEAD)
            lines = raw.decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
            if method == "HEAD" or "content-length" not in headers:
                return int(lines[0].split()[1]), None
            while len(rest) < int(headers["content-length"]):
                data = sock.recv(65536)
                assert data, "the answer broke off"
                rest += data
            return int(lines[0].split()[1]), rest

    def json(self, method: str, target: str, data: Any = None) -> Any:
        status, body = self.ask(method, target, b"" if data is None else json.dumps(data).encode(), JSON)
        assert status < 300, body
        return json.loads(body) if body else None


JSON = "Content-Type: application/json\r\n"


@pytest.fixture(scope="module")
def door() -> Iterator[Door]:
    """An engine of this module's own, with one of each noun in it; at the end nothing is left but these."""
    with busybox_engine() as engine:
        door = Door(engine)
        with settling(engine):
            running = {"Image": "busybox", "Cmd": ["sleep", "3000"], "StopTimeout": 0, "HostConfig": {"NetworkMode": "none"}}
            ids = [door.json("POST", f"/containers/create?name={name}", running)["Id"] for name in (RUNNING, CREATED)]
            door.json("POST", f"/containers/{RUNNING}/start")
            door.json("POST", "/networks/create", {"Name": NETWORK})
            door.json("POST", "/volumes/create", {"Name": VOLUME})
            door.json("POST", "/bothy/secrets/create", {"Name": SECRET, "Data": "eA=="})
            door.ids = {
                "id": [RUNNING, CREATED, *ids, NETWORK],
                "name": [VOLUME, SECRET, "busybox", "busybox:latest"],
                "volume": [VOLUME],
            }
            yield door
            clear(door)


def clear(door: Door) -> None:
    """Remove all that requests have made."""
    for found in door.json("GET", "/containers/json?all=1"):
        door.ask("DELETE", f"/containers/{found['Id']}?force=1&v=1")
    for found in door.json("GET", "/networks"):
        if found["Name"] not in ("bridge", "host", "none"):
            door.json("DELETE", f"/networks/{found['Id']}")
    for found in door.json("GET", "/volumes")["Volumes"]:
        door.json("DELETE", f"/volumes/{found['Name']}?force=1")
    for found in door.json("GET", "/bothy/secrets"):
        door.json("DELETE", f"/bothy/secrets/{found['Spec']['Name']}")


def targets(route: Route, ids: dict[str, list[str]]) -> st.SearchStrategy[str]:
    """Paths of a route: its parameters name things that are there, or odd ones, quoted well or badly; queries of all shapes."""
    parts = route.pattern.replace(":path}", "}").replace("{", "\0").replace("}", "\0").split("\0")
    texts = odd.texts().map(lambda text: quote(text.encode("utf-8", "surrogateescape" if "\udcff" in text else "replace"), safe=""))
    raw = st.sampled_from(("%", "%zz", "%c3%28", "..", ".", "a%2fb", "%00", "~", "a" * 7000, ";", "%25%30"))
    # what the real thing would not survive is asked of odd ones alone
    kept = route.method != "DELETE" and not route.pattern.endswith(("/rename", "/kill", "/stop", "/restore", "/clone", "/tag"))

    def one(name: str) -> st.SearchStrategy[str]:
        known = st.sampled_from(ids.get(name, [""])) if kept and ids.get(name) else texts
        return known | known | texts | raw

    pieces = [st.just(part) if at % 2 == 0 else one(part) for at, part in enumerate(parts)]
    values = odd.texts().map(lambda text: text.encode("utf-8", "replace")) | odd.numbers()
    pairs = st.tuples(st.sampled_from(PARAMETERS), values) | st.tuples(
        st.just("filters"), odd.filters().map(lambda text: text.encode("utf-8", "replace"))
    )
    pairs |= st.tuples(st.just("t"), st.sampled_from(("0", "x", "", "9" * 5000)))
    queries = st.lists(pairs, max_size=4).map(urlencode) | st.sampled_from(("&&==", "%", "a=%zz", "filters=%", "all"))
    versions = st.sampled_from(("", "/v1.24", "/v1.41", "/v1.47"))
    return st.tuples(versions, st.tuples(*pieces).map("".join), queries).map(lambda three: f"{three[0]}{three[1]}?{three[2]}")


def assert_formed(request: str, status: int, body: bytes | None) -> None:
    """An answer in Docker's form, and one that does not blame the engine."""
    assert status < 500 or status in (501, 503), (request, status, body)
    if status >= 400 and body is not None:
        said = json.loads(body)
        assert isinstance(said["message"], str), request
        assert said["message"], request


def bounded(examples: int) -> Any:
    return settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )


def told(door: Door, since: int) -> str:
    """What the engine's log has since then."""
    return door.log.read_bytes()[since:].decode(errors="replace")


@pytest.mark.parametrize(
    "route", [pytest.param(r, id=f"{r.method} {r.pattern}") for r in ROUTES if r.pattern not in LEFT_OUT and r.pattern != "/containers/create"]
)  # fmt: skip
def test_odd_requests(door, route):
    since = door.log.stat().st_size
    bodies = BODIES.get(route.pattern, st.just(b"") | odd.encoded(odd.junk()) | st.binary(max_size=2000))
    if "archive" in route.pattern or route.pattern in ("/images/load", "/images/create"):
        bodies = st.binary(max_size=2000) | st.sampled_from((b"", b"\x1f\x8b\x08" + b"\0" * 50, b"BZh9" + b"x" * 50, b"\0" * 10240))
    elif route.pattern.startswith("/bothy/volumes"):
        bodies = odd.encoded(odd.record(StorageAsked))

    @bounded(4 if route in SWARM else 12)
    @given(
        targets(route, door.ids),
        bodies,
        st.sampled_from((JSON, "", "Content-Type: text/x\r\n", "Upgrade: tcp\r\nConnection: Upgrade\r\n")),
    )
    def ask(target: str, body: bytes, extra: str) -> None:
        status, answer = door.ask(route.method, target, body if route.method not in ("GET", "HEAD") else b"", extra)
        assert_formed(f"{route.method} {target[:300]} {body[:300]!r}", status, answer)

    ask()
    assert "Traceback" not in told(door, since)
    assert door.ask("GET", "/_ping") == (200, b"OK")


def test_odd_containers(door):
    """Every field of a creation with wrong values, and some of what was taken is started: then a refusal is the host's or the image's."""
    since, made = door.log.stat().st_size, []
    whole = st.tuples(
        odd.record(Config, without=("Image",)),
        odd.like(HostConfig) | odd.record(HostConfig),
        odd.like(NetworkingConfig),
        st.booleans(),
    )

    @bounded(150)
    @given(whole)
    def ask(given_: tuple[dict[str, Any], Any, Any, bool]) -> None:
        config, host_config, networking, valid = given_
        body = {"Image": "busybox", **config, "HostConfig": host_config}
        if not valid:
            body["NetworkingConfig"] = networking
        status, answer = door.ask("POST", "/containers/create", json.dumps(body).encode(), JSON)
        assert_formed(f"create {json.dumps(body)[:2000]}", status, answer)
        if status == 201 and answer:
            identity = json.loads(answer)["Id"]
            shown, said = door.ask("GET", f"/containers/{identity}/json")
            assert shown == 200, said
            if len(made) < 25 and isinstance(host_config, dict) and not any(host_config.get(key) for key in OUT_OF_REACH):
                made.append((identity, body))
                status, answer = door.ask("POST", f"/containers/{identity}/start", b"", JSON)
                assert_formed(f"start {json.dumps(body)[:2000]}", status, answer)
            assert door.ask("GET", "/containers/json?all=1")[0] == 200
            assert door.ask("DELETE", f"/containers/{identity}?force=1&v=1")[0] == 204

    ask()
    assert len(made) >= 10
    assert "Traceback" not in told(door, since)
    assert door.ask("GET", "/_ping") == (200, b"OK")


def test_a_head_that_is_none(door):
    """Bytes that are no HTTP end the connection or are told so; the engine goes on."""
    since = door.log.stat().st_size
    for data in (b"\0" * 100, b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET " + b"/" * 100_000, b"POST /auth HTTP/1.1\r\nContent-Length: x\r\n\r\n",
                 b"POST /commit HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"GET /_ping HTTP/1.1\r\n" + b"A: b\r\n" * 5000 + b"\r\n"):  # fmt: skip
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(30)
            sock.connect(door.path)
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            answer = b""
            while piece := sock.recv(65536):
                answer += piece
            assert not answer or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4")), (data[:50], answer[:300])
    assert "Traceback" not in told(door, since)
    assert door.ask("GET", "/_ping") == (200, b"OK")
