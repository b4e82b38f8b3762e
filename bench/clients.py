"""The figures of Docker's clients and of networks: docker-py and docker-compose on both engines, packets, names, crowds.

The same client, the same calls, the same image; only the socket differs.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import docker

from bench.figures import Bench, Figure, in_turn, median, timed
from bench.peers import IMAGE, output, quiet

_LIMITS = [docker.types.Ulimit(name="nofile", soft=1024, hard=1024)]
_CROWD = 200
_LISTED = 50
_BYTES = 1 << 30
_QUERIES = 1000

_COMPOSE = """\
version: "2.4"
x-common: &common
  image: {image}
  ulimits: {{nofile: 1024}}
  command: ["sh", "-c", "touch /tmp/ready; exec sleep 600"]
  stop_signal: SIGKILL
  healthcheck: {{test: ["CMD", "test", "-e", "/tmp/ready"], interval: 500ms, timeout: 5s, retries: 20}}
services:
  database:
    <<: *common
  cache:
    <<: *common
    depends_on: {{database: {{condition: service_healthy}}}}
  web:
    <<: *common
    depends_on: {{database: {{condition: service_healthy}}, cache: {{condition: service_healthy}}}}
"""

# Both run below nsenter, inside a container's network namespace and outside of the engines' doing: what is measured is the way.
_SINK = """
import socket, sys
listener = socket.create_server(("", int(sys.argv[1])))
print("ready", flush=True)
buffer = bytearray(1 << 20)
while True:
    connection, _ = listener.accept()
    while connection.recv_into(buffer):
        pass
    connection.sendall(b"!")
    connection.close()
"""
_SOURCE = """
import socket, sys, time
host, port, total = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
data = bytes(1 << 20)
begin = time.perf_counter()
with socket.create_connection((host, port)) as connection:
    for _ in range(total >> 20):
        connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)
    assert connection.recv(1) == b"!"
print((time.perf_counter() - begin) * 1e3)
"""
_ASKER = """
import socket, statistics, struct, sys, time
server, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
question = b"".join(bytes([len(p)]) + p.encode() for p in name.split(".")) + bytes([0, 0, 1, 0, 1])
asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asker.settimeout(5)
asker.connect((server, 53))
took = []
for number in range(count):
    begin = time.perf_counter()
    asker.send(struct.pack(">6H", number, 0x0100, 1, 0, 0, 0) + question)
    answer = asker.recv(512)
    took.append(time.perf_counter() - begin)
    assert answer[:2] == struct.pack(">H", number) and answer[3] & 15 == 0 and answer[6:8] != b"\\0\\0", answer
print(statistics.median(took) * 1e6)
"""


def _sockets(bench: Bench) -> dict[str, str]:
    return {"bothy": str(bench.bothy.run_folder / "bothy.sock"), "docker": str(bench.docker.socket)}


@contextmanager
def _clients(bench: Bench) -> Iterator[dict[str, docker.DockerClient]]:
    quiet([bench.bothy.command, "ps"])
    clients = {who: docker.DockerClient(base_url=f"unix://{path}", version="auto") for who, path in _sockets(bench).items()}
    yield clients
    for client in clients.values():
        client.close()


def _add(bench: Bench, name: str, samples: dict[str, list[float]], share: float, unit: str, rule: str) -> None:
    bench.add(Figure(name, median(samples["bothy"]), median(samples["docker"]) * share, unit, rule, samples))


def docker_py(bench: Bench) -> None:
    """docker-py: `containers.run(detach=True)`, `wait`, `remove`, default network."""

    def cycle(client: docker.DockerClient) -> float:
        start = time.perf_counter()
        container = client.containers.run(IMAGE, ["true"], detach=True, ulimits=_LIMITS)
        container.wait()
        container.remove()
        return (time.perf_counter() - start) * 1e3

    with _clients(bench) as clients:
        samples = in_turn({who: partial(cycle, client) for who, client in clients.items()}, bench.rounds)
    _add(bench, "docker-py: run + wait + remove", samples, 1 / 5, "ms", "1/5 of docker's")


def listing(bench: Bench) -> None:
    """50 running containers listed, then each inspected, over one connection."""

    def look(connection: http.client.HTTPConnection) -> float:
        start = time.perf_counter()
        connection.request("GET", "/v1.41/containers/json")
        found = json.loads(connection.getresponse().read())
        for entry in found:
            connection.request("GET", f"/v1.41/containers/{entry['Id']}/json")
            connection.getresponse().read()
        took = (time.perf_counter() - start) * 1e3
        if len(found) != _LISTED:
            raise SystemExit(f"bench: {len(found)} containers are listed")
        return took

    def look_by(client: docker.DockerClient) -> float:
        start = time.perf_counter()
        client.containers.list()
        return (time.perf_counter() - start) * 1e3

    with _clients(bench) as clients:
        for client in clients.values():
            for _ in range(_LISTED):
                client.containers.run(IMAGE, ["sleep", "600"], detach=True, ulimits=_LIMITS)
        connections = {who: _Connection(path) for who, path in _sockets(bench).items()}
        samples = in_turn({who: partial(look, connection) for who, connection in connections.items()}, bench.rounds)
        _add(bench, "50 containers listed and inspected", samples, 1 / 2, "ms", "1/2 of docker's")
        samples = in_turn({who: partial(look_by, client) for who, client in clients.items()}, bench.rounds)
        bench.note("the same by docker-py's containers.list()", median(samples["bothy"]), "ms", samples)
        for connection in connections.values():
            connection.close()
        for client in clients.values():
            for container in client.containers.list():
                container.remove(force=True)


class _Connection(http.client.HTTPConnection):
    """One that is kept, over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(path)


def compose(bench: Bench) -> None:
    """`docker-compose up -d`, then `down`, of three services that wait for each other's health."""
    folder = bench.work / "compose"
    folder.mkdir()
    (folder / "docker-compose.yml").write_text(_COMPOSE.format(image=IMAGE))

    def round_trip(path: str) -> float:
        env = {**os.environ, "DOCKER_HOST": f"unix://{path}"}
        start = time.perf_counter()
        for words in (("up", "-d"), ("down",)):
            quiet(["docker-compose", *words], cwd=folder, env=env)
        return (time.perf_counter() - start) * 1e3

    samples = in_turn({who: partial(round_trip, path) for who, path in _sockets(bench).items()}, bench.rounds, warm=1)
    _add(bench, "docker-compose up -d + down, 3 healthy services", samples, 1 / 2, "ms", "1/2 of docker's")


class _Inside:
    """A running container of one engine, and the way into its network namespace."""

    def __init__(self, client: docker.DockerClient, **options: Any) -> None:
        self.container = client.containers.run(IMAGE, ["sleep", "3600"], detach=True, ulimits=_LIMITS, **options)
        self.container.reload()
        state, networks = self.container.attrs["State"], self.container.attrs["NetworkSettings"]["Networks"]
        self.address = next(iter(networks.values()))["IPAddress"]
        self.gateway = next(iter(networks.values()))["Gateway"]
        self._enter = ["nsenter", f"--net=/proc/{state['Pid']}/ns/net"]
        self._pid = state["Pid"]

    def python(self, script: str, *args: str) -> list[str]:
        return [*self._enter, sys.executable, "-I", "-c", script, *args]

    def nameserver(self) -> str:
        text = Path(f"/proc/{self._pid}/root/etc/resolv.conf").read_text()
        return next(line.split()[1] for line in text.splitlines() if line.startswith("nameserver"))

    def sink(self, port: int) -> subprocess.Popen[bytes]:
        """A program that swallows what is sent to `port`, from when this returns."""
        process = subprocess.Popen(self.python(_SINK, str(port)), stdout=subprocess.PIPE)
        assert process.stdout
        process.stdout.readline()
        return process

    def remove(self) -> None:
        self.container.remove(force=True)


def throughput(bench: Bench) -> None:
    """The time that 1 GiB takes by TCP: host to container by a published port, and container to container."""
    with _clients(bench) as clients:
        sinks = {who: _Inside(client, ports={"5000/tcp": 5000 + n}) for n, (who, client) in enumerate(clients.items())}
        sources = {who: _Inside(client) for who, client in clients.items()}
        programs = [inside.sink(5000) for inside in sinks.values()]
        rounds = 3 * bench.rounds  # single runs differ by more than the twentieth that is looked for

        def outside(who: str, port: int) -> float:
            command = [sys.executable, "-I", "-c", _SOURCE, sinks[who].gateway, str(port), str(_BYTES)]
            return float(output(command))

        def inside(who: str) -> float:
            return float(output(sources[who].python(_SOURCE, sinks[who].address, "5000", str(_BYTES))))

        samples = in_turn({who: partial(outside, who, 5000 + n) for n, who in enumerate(sinks)}, rounds)
        _add(bench, "1 GiB, host to container, published port", samples, 1 / 0.95, "ms", "0.95 of docker's throughput")
        samples = in_turn({who: partial(inside, who) for who in sinks}, rounds)
        _add(bench, "1 GiB, container to container", samples, 1 / 0.95, "ms", "0.95 of docker's throughput")
        for program in programs:
            program.kill()
            program.wait()
        for each in (*sinks.values(), *sources.values()):
            each.remove()


def names(bench: Bench) -> None:
    """The look-up of another container's name on a network of one's own, asked from inside a container."""
    with _clients(bench) as clients:
        networks = {who: client.networks.create("bench-names") for who, client in clients.items()}
        found = {who: _Inside(client, name="bench-found", network="bench-names") for who, client in clients.items()}
        askers = {who: _Inside(client, network="bench-names") for who, client in clients.items()}

        def ask(who: str) -> float:
            return float(output(askers[who].python(_ASKER, askers[who].nameserver(), "bench-found", str(_QUERIES))))

        samples = in_turn({who: partial(ask, who) for who in clients}, bench.rounds, warm=1)
        for each in (*found.values(), *askers.values()):
            each.remove()
        for network in networks.values():
            network.remove()
    _add(bench, "a name looked up", samples, 1.0, "µs", "docker's")


def crowd(bench: Bench) -> None:
    """`run --rm IMAGE true` with 200 idle containers, beside the same before they came and after they went."""
    command = bench.bothy.run("--rm")

    def some() -> list[float]:
        return in_turn({"bothy": partial(timed, command)}, bench.rounds)["bothy"]

    before = some()
    with _clients(bench) as clients:
        client = clients["bothy"]
        for _ in range(_CROWD):
            client.containers.run(IMAGE, ["sleep", "3600"], detach=True)
        among = some()
        for container in client.api.containers():
            client.api.remove_container(container["Id"], force=True)
    after = some()
    alone = statistics.median(before + after)
    samples = {"with 200": among, "with none": before + after}
    bench.add(Figure("run --rm among 200 idle containers", median(among), 1.3 * alone, "ms", "1.3 x with none", samples))


ALL: tuple[Callable[[Bench], None], ...] = (docker_py, listing, compose, throughput, names, crowd)
