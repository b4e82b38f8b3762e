from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.spawners import SpawnerHarness


@pytest.fixture
def spawned(tmp_path: Path) -> Iterator[SpawnerHarness]:
    """A spawner that makes keepers of real containers."""
    harness = SpawnerHarness(tmp_path)
    yield harness
    harness.close()
