"""Docker's clients, unchanged: their engine is named by DOCKER_HOST, the wall by the runtime."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import docker
import pytest

from tests.e2e.conftest import Walled
from tests.support.engine import TestEngine


def socket_of(engine: TestEngine) -> str:
    return f"unix://{engine.run_folder}/bothy.sock"


class Client(docker.DockerClient):  # type: ignore[misc]
    """docker-py's client, with the arguments that pick the wall in `walled`."""

    walled: dict[str, Any]


@pytest.fixture
def client(bothy: Walled) -> Iterator[Client]:
    """docker-py over one wall: `client.containers.run(…, **client.walled)`."""
    bothy("ps").ok()
    made = Client(base_url=socket_of(bothy.engine), version="auto", timeout=120)
    made.walled = {"runtime": "vm"} if bothy.wall == "vm" else {}
    yield made
    made.close()
