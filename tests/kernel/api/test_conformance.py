"""Field by field what dockerd 20.10 answers: each key that it has is here, with a value of the same JSON type; and its errors.

data/docker-20.10.json was recorded of a dockerd with the objects that `Asked` makes: for each answer the paths of its fields
(`[]` an entry of a list, `*` any key of a map) and the types that were seen there. An empty list or map is written as null there
in places and here not, so null is as good as these.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.engine import TestEngine, await_
from tests.support.http import api as ask

RECORDED = json.loads((Path(__file__).parent / "data" / "docker-20.10.json").read_text())
# Maps whose keys are names that somebody gave.
FREE = {
    "Labels", "Sysctls", "Tmpfs", "AuxiliaryAddresses", "Options", "Ports", "Networks", "Containers", "ExposedPorts", "EndpointsConfig",
    "PortBindings", "Runtimes", "networks", "stats", "IndexConfigs", "Attributes", "DriverOpts",
}  # fmt: skip
MISSING = {
    ".HostConfig.KernelMemory": "taken out of the API with 1.42",
    ".HostConfig.KernelMemoryTCP": "taken out of the API with 1.42",
    ".KernelMemory": "taken out of the API with 1.42",
    ".KernelMemoryTCP": "taken out of the API with 1.42",
    ".GraphDriver.Data.LowerDir": "the driver's own: an image here is one mount",
    ".GraphDriver.Data.MergedDir": "the driver's own: mounted in the container's namespace alone",
    ".GraphDriver.Data.UpperDir": "the driver's own: a machine has a disk, an image no folder",
    ".GraphDriver.Data.WorkDir": "the driver's own: a machine has a disk, an image no folder",
    ".memory_stats.max_usage": "told by first control groups alone, and not of machines",
    ".Error": "null in 20.10, left out since",
}
OF_MACHINES = {".HostConfig.MaskedPaths[]": "a kernel of its own", ".HostConfig.ReadonlyPaths[]": "a kernel of its own"}
NOTHING = {"null", "list", "object"}

# Method, path, body, status, and the beginning of the message (compared without case: dockerd's own has changed over the years).
ERRORS: list[tuple[str, str, Any, int, str]] = [
    ("POST", "/containers/nothing/start", None, 404, "No such container: nothing"),
    ("POST", "/containers/nothing/stop", None, 404, "No such container: nothing"),
    ("POST", "/containers/nothing/wait", None, 404, "No such container: nothing"),
    ("GET", "/containers/nothing/json", None, 404, "No such container: nothing"),
    ("GET", "/containers/nothing/logs?stdout=1", None, 404, "No such container: nothing"),
    ("DELETE", "/containers/nothing", None, 404, "No such container: nothing"),
    ("POST", "/containers/nothing/exec", {"Cmd": ["x"]}, 404, "No such container: nothing"),
    ("POST", "/commit?container=nothing&repo=x", {}, 404, "No such container: nothing"),
    ("GET", "/exec/nothing/json", None, 404, "No such exec instance: nothing"),
    ("GET", "/images/nothing/json", None, 404, "No such image: nothing:latest"),
    ("DELETE", "/images/nothing", None, 404, "No such image: nothing:latest"),
    ("POST", "/images/nothing/tag?repo=x", None, 404, "No such image: nothing:latest"),
    ("POST", "/containers/create", {"Image": "nothing"}, 404, "No such image: nothing:latest"),
    ("GET", "/networks/nothing", None, 404, "network nothing not found"),
    ("DELETE", "/networks/nothing", None, 404, "network nothing not found"),
    ("DELETE", "/networks/bridge", None, 403, "bridge is a pre-defined network and cannot be removed"),
    ("POST", "/networks/create", {"Name": "t-net"}, 409, "network with name t-net already exists"),
    ("POST", "/networks/create", {"Name": "t-host", "Driver": "host"}, 403, 'only one instance of "host" network is allowed'),
    ("POST", "/networks/create", {"Name": "bridge"}, 403, "operation is not permitted on predefined bridge network"),
    ("DELETE", "/networks/t-net", None, 403, "error while removing network: network t-net"),
    ("POST", "/networks/t-net/connect", {"Container": "nothing"}, 404, "No such container: nothing"),
    ("GET", "/volumes/nothing", None, 404, "get nothing: no such volume"),
    ("DELETE", "/volumes/nothing", None, 404, "get nothing: no such volume"),
    ("DELETE", "/volumes/t-vol", None, 409, "remove t-vol: volume is in use - ["),
    ("POST", "/containers/t-a/start", None, 304, ""),
    ("POST", "/containers/t-b/stop", None, 304, ""),
    ("POST", "/containers/t-b/kill", None, 409, "Cannot kill container: "),
    ("DELETE", "/containers/t-a", None, 409, "cannot remove container "),
    ("POST", "/containers/t-a/rename?name=t-b", None, 409, 'Conflict. The container name "/t-b" is already in use by container "'),
    ("POST", "/containers/create?name=t-a", {"Image": "busybox"}, 409, 'Conflict. The container name "/t-a" is already in use by container "'),
    ("POST", "/containers/t-a/rename", None, 400, "Neither old nor new names may be empty"),
    ("POST", "/containers/t-a/rename?name=t-a", None, 400, "Renaming a container with the same name as its current name"),
    ("POST", "/containers/create?name=a%20b", {"Image": "busybox"}, 400, "Invalid container name (a b), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"),
    ("POST", "/containers/create", {}, 400, "Config cannot be empty in order to create a container"),
    ("POST", "/containers/t-a/kill?signal=NOPE", None, 400, "Invalid signal: NOPE"),
    ("POST", "/containers/t-a/exec", {"Cmd": []}, 400, "No exec command specified"),
    ("GET", "/containers/t-a/logs", None, 400, "Bad parameters: you must choose at least one stream"),
    ("GET", '/containers/json?filters={"x":["y"]}', None, 400, "Invalid filter 'x'"),
    ("GET", '/containers/json?filters={"status":["y"]}', None, 400, "Invalid filter 'status=y'"),
    ("GET", "/events?since=5&until=2", None, 400, "`since` time (5) cannot be after `until` time (2)"),
    ("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"Memory": 1}}, 400, "Minimum memory limit allowed is 6MB"),
    ("POST", "/containers/create", {"Image": "busybox", "HostConfig": {"Runtime": "x"}}, 400, "unknown or invalid runtime name: x"),
    ("GET", "/nothing", None, 404, "page not found"),
    ("GET", "/services", None, 503, "This node is not a swarm manager."),
]  # fmt: skip


class Asked:
    """One of each noun, and requests about them."""

    def __init__(self, engine: TestEngine, runtime: str) -> None:
        self.socket = engine.run_folder / "bothy.sock"
        limits = {"Runtime": runtime, "Ulimits": [{"Name": "nofile", "Soft": 1024, "Hard": 1024}]}
        pool = {
            "Subnet": "10.211.0.0/24", "Gateway": "10.211.0.1", "IPRange": "10.211.0.128/25", "AuxiliaryAddresses": {"x": "10.211.0.200"},
        }  # fmt: skip
        mtu = {"com.docker.network.driver.mtu": "1400"}
        self.since = int(time.time())
        self.ok("POST", "/networks/create", {"Name": "t-net", "IPAM": {"Config": [pool]}, "Labels": {"a": "b"}, "Options": mtu})
        self.ok("POST", "/volumes/create", {"Name": "t-vol", "Labels": {"a": "b"}})
        check = {"Test": ["CMD", "true"], "Interval": 10**9, "Timeout": 10**9, "Retries": 2, "StartPeriod": 10**9}
        host = {
            **limits, "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "0"}]}, "Binds": ["t-vol:/vol:ro"],
            "Mounts": [{"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 65536, "Mode": 448}},
                       {"Type": "bind", "Source": "/tmp", "Target": "/b", "ReadOnly": True}],
            "NetworkMode": "t-net", "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}, "CapAdd": ["NET_ADMIN"],
            "CapDrop": ["MKNOD"], "Dns": ["1.1.1.1"], "DnsSearch": ["x.y"], "DnsOptions": ["ndots:1"], "ExtraHosts": ["x:1.2.3.4"],
            "GroupAdd": ["5"], "Tmpfs": {"/tt": "size=64k"}, "SecurityOpt": ["no-new-privileges"], "Memory": 256 << 20,
            "NanoCpus": 5 * 10**8, "PidsLimit": 100, "Init": True, "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}},
        }  # fmt: skip
        full = {
            "Image": "busybox", "Cmd": ["sleep", "1000"], "Env": ["A=b"], "Hostname": "h", "Domainname": "d.e", "User": "0",
            "Labels": {"a": "b"}, "WorkingDir": "/tmp", "StopSignal": "SIGKILL", "StopTimeout": 1, "OpenStdin": True,
            "ExposedPorts": {"80/tcp": {}, "81/udp": {}}, "Volumes": {"/anon": {}}, "Healthcheck": check, "HostConfig": host,
            "NetworkingConfig": {"EndpointsConfig": {"t-net": {"Aliases": ["al"], "IPAMConfig": {"IPv4Address": "10.211.0.150"}}}},
        }  # fmt: skip
        self.created = self.ok("POST", "/containers/create?name=t-a", full)
        self.ok("POST", "/containers/create?name=t-b", {"Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": limits})

    def ask(self, method: str, target: str, body: Any = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        path, mark, query = target.partition("?")
        status, _, answer = ask(self.socket, method, f"/v1.41{path}{mark}{quote(query, safe='=&%')}", data)
        return status, json.loads(answer) if answer else None

    def ok(self, method: str, target: str, body: Any = None) -> Any:
        status, answer = self.ask(method, target, body)
        assert status < 300, (target, answer)
        return answer

    def answers(self) -> Iterator[tuple[str, Any]]:
        """The name of an answer in the record, and the answer."""
        yield "create", self.created
        yield "container created", self.ok("GET", "/containers/t-b/json")
        for name in ("t-a", "t-b"):
            self.ok("POST", f"/containers/{name}/start")
        await_(lambda: self.ok("GET", "/containers/t-a/json")["State"]["Health"]["Log"], "a probe", timeout=60)
        made = self.ok("POST", "/containers/t-a/exec", {"Cmd": ["true"], "AttachStdout": True})
        yield "exec create", made
        self.ok("POST", f"/exec/{made['Id']}/start", {"Detach": True})
        await_(lambda: self.ok("GET", f"/exec/{made['Id']}/json")["ExitCode"] == 0, "the exec")
        yield "exec", self.ok("GET", f"/exec/{made['Id']}/json")
        yield "container running", self.ok("GET", "/containers/t-a/json?size=1")
        yield "containers", self.ok("GET", "/containers/json?all=1")
        yield "containers size", self.ok("GET", "/containers/json?all=1&size=1")
        yield "top", self.ok("GET", "/containers/t-a/top")
        yield "changes", self.ok("GET", "/containers/t-a/changes")
        yield "stats", self.ok("GET", "/containers/t-a/stats?stream=0")
        yield "update", self.ok("POST", "/containers/t-a/update", {"RestartPolicy": {"Name": "no"}})
        yield "networks", self.ok("GET", "/networks")
        yield "network", self.ok("GET", "/networks/t-net")
        yield "network bridge", self.ok("GET", "/networks/bridge")
        yield "volumes", self.ok("GET", "/volumes")
        yield "volume", self.ok("GET", "/volumes/t-vol")
        yield "images", self.ok("GET", "/images/json")
        yield "image", self.ok("GET", "/images/busybox/json")
        yield "history", self.ok("GET", "/images/busybox/history")
        yield "info", self.ok("GET", "/info")
        yield "version", self.ok("GET", "/version")
        yield "df", self.ok("GET", "/system/df")
        self.ok("POST", "/containers/t-b/stop?t=0")
        yield "wait", self.ok("POST", "/containers/t-b/wait")
        yield "container exited", self.ok("GET", "/containers/t-b/json")

    def events(self) -> Iterator[tuple[str, Any]]:
        path = f"/v1.41/events?since={self.since}&until={int(time.time()) + 1}"
        for line in ask(self.socket, "GET", path)[2].splitlines():
            entry = json.loads(line)
            yield f"event {entry['Type']}", entry


@pytest.fixture(params=[pytest.param("", id="container"), pytest.param("vm", marks=pytest.mark.qemu)])
def asked(request: pytest.FixtureRequest, engine: TestEngine, settled: TestEngine) -> Iterator[Asked]:
    if request.param:
        engine("run", "--rm", "--vm", "busybox", "true", timeout=180).ok()
    made = Asked(settled, request.param)
    yield made
    for name in ("t-a", "t-b"):
        made.ok("DELETE", f"/containers/{name}?force=1&v=1")
    made.ok("DELETE", "/networks/t-net")
    made.ok("DELETE", "/volumes/t-vol")


def flatten(value: Any, path: str, found: dict[str, set[str]]) -> dict[str, set[str]]:
    """The types seen at each path below a value."""
    kinds = {bool: "bool", type(None): "null", int: "number", float: "number", str: "string", list: "list", dict: "object"}
    found.setdefault(path, set()).add(kinds[type(value)])
    if isinstance(value, dict):
        free = path.rpartition(".")[2] in FREE
        for key, inner in value.items():
            flatten(inner, f"{path}.{'*' if free else key}", found)
    elif isinstance(value, list):
        for inner in value:
            flatten(inner, f"{path}[]", found)
    return found


def differences(name: str, found: dict[str, set[str]], allowed: dict[str, str]) -> list[str]:
    told = []
    for path, words in RECORDED[name].items():
        theirs, ours = set(words.split("|")), found.get(path)
        if ours is None:
            if path not in allowed:
                told.append(f"{name}: {path} is missing")
        elif not (theirs & ours or (theirs <= NOTHING and ours <= NOTHING)):
            told.append(f"{name}: {path} is {ours}, not {theirs}")
    return told


def test_every_field_of_docker_is_here(asked):
    seen: dict[str, dict[str, set[str]]] = {}
    for name, answer in asked.answers():
        flatten(answer, "", seen.setdefault(name, {}))
    for name, answer in asked.events():
        if name in RECORDED:
            flatten(answer, "", seen.setdefault(name, {}))
    machine = asked.ok("GET", "/containers/t-a/json")["HostConfig"]["Runtime"] == "vm"
    allowed = {**MISSING, **(OF_MACHINES if machine else {})}
    assert {"container running", "image", "network", "volume", "info", "df", "event container"} <= set(seen)
    assert [line for name, found in seen.items() for line in differences(name, found, allowed)] == []


def test_errors_are_dockers(asked):
    asked.ok("POST", "/containers/t-a/start")
    wrong = []
    for method, target, body, status, words in ERRORS:
        got, answer = asked.ask(method, target, body)
        said = answer["message"] if answer else ""
        if got != status or not said.lower().startswith(words.lower()):
            wrong.append((method, target, got, said))
    assert wrong == []
