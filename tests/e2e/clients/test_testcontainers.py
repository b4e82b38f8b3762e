"""testcontainers from PyPI: it starts what a test needs, waits until it is ready, and cleans up."""

from __future__ import annotations

import urllib.request
from typing import Any

import docker
import pytest
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

from tests.e2e.clients.conftest import socket_of
from tests.e2e.conftest import Walled

pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning", "ignore::DeprecationWarning"
)
SERVER = "echo hello > /tmp/index.html; echo ready; exec httpd -f -p 80 -h /tmp"


@pytest.fixture
def walled(bothy: Walled, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The arguments that pick the wall; testcontainers finds the engine by DOCKER_HOST. Its reaper is an image of a registry."""
    bothy("ps").ok()
    monkeypatch.setenv("DOCKER_HOST", socket_of(bothy.engine))
    monkeypatch.setattr(testcontainers_config, "ryuk_disabled", True)
    return {"runtime": "vm"} if bothy.wall == "vm" else {}


def test_a_server_by_its_mapped_port(walled: dict[str, Any]) -> None:
    server = DockerContainer("busybox", **walled).with_command(["sh", "-c", SERVER]).with_exposed_ports(80)
    server = server.with_env("WHO", "me").waiting_for(LogMessageWaitStrategy("ready"))
    with server as running:
        host, port = running.get_container_host_ip(), int(running.get_exposed_port(80))
        with urllib.request.urlopen(f"http://{host}:{port}/", timeout=20) as response:
            assert response.read() == b"hello\n"
        assert running.exec(["sh", "-c", "echo $WHO"]).output == b"me\n"
        assert b"ready" in running.get_logs()[0]
        identity = running.get_wrapped_container().id
    client = docker.from_env(version="auto")
    with pytest.raises(docker.errors.NotFound):
        client.containers.get(identity)
    client.close()


def test_two_that_talk_on_a_network_of_theirs(walled: dict[str, Any]) -> None:
    with Network() as network:
        server = (
            DockerContainer("busybox", **walled)
            .with_command(["sh", "-c", SERVER])
            .with_network(network)
            .with_network_aliases("server")
        )
        with server.waiting_for(LogMessageWaitStrategy("ready")):
            client = (
                DockerContainer("busybox", **walled)
                .with_command(["sh", "-c", "wget -qO- http://server/; sleep 100"])
                .with_network(network)
            )
            with client.waiting_for(LogMessageWaitStrategy("hello")) as running:
                assert b"hello" in running.get_logs()[0]
