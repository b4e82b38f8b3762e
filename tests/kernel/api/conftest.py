"""An engine of this folder's own, reached by its socket; every test must settle."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from bothy.api.client import Client
from tests.support.engine import TestEngine, await_
from tests.support.sessions import busybox_engine, settling
from tests.support.settle import snapshot


@pytest.fixture(scope="session")
def engine() -> Iterator[TestEngine]:
    """An engine with a busybox image."""
    with busybox_engine() as engine:
        yield engine


@pytest.fixture
def settled(engine: TestEngine) -> Iterator[TestEngine]:
    """The engine; what a test leaves behind is removed, and then there must be nothing more than before it."""
    await_pool(engine)
    with settling(engine):
        yield engine


def await_pool(engine: TestEngine) -> None:
    """Until the spawner has made its sandboxes (it does so in idle time): their descriptors are no leak."""
    last = [0, 0]

    def steady() -> bool:
        time.sleep(0.02)
        count = snapshot(engine).spawner_fds
        last[:] = [count, last[1] + 1 if count == last[0] else 0]
        return count > 0 and last[1] >= 3

    await_(steady, "the pool of sandboxes to fill")


@pytest.fixture
def api(settled: TestEngine) -> Iterator[Client]:
    """A client of the engine."""
    with Client(str(settled.run_folder / "bothy.sock")) as client:
        yield client
