"""The daemon's beginnings and ends: many command lines at once, an orderly end, and a daemon that can not start."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bothy.api.client import Client
from tests.support.engine import TestEngine, await_


@pytest.fixture
def fresh() -> Iterator[TestEngine]:
    """An engine that nobody has started yet."""
    root = Path(tempfile.mkdtemp(prefix="bothy-api-", dir="/var/tmp"))
    run = Path(tempfile.mkdtemp(prefix="bothy-api-", dir="/run"))
    engine = TestEngine(root, run)
    try:
        yield engine
    finally:
        engine.shutdown()


def end(engine: TestEngine) -> None:
    with Client(str(engine.run_folder / "bothy.sock")) as client:
        assert client.request("POST", "/bothy/shutdown").status == 202


def test_many_at_once_start_one_and_again_after_its_end(fresh: TestEngine):
    for _ in range(3):
        many = [fresh.popen("version", stdout=subprocess.PIPE) for _ in range(10)]
        assert all(b"API" in process.communicate(timeout=60)[0] and process.returncode == 0 for process in many)
        first = fresh.pid_of("bothyd")
        end(fresh)
        await_(lambda first=first: first not in fresh.processes(), "the daemon to end")


def test_a_command_right_after_the_end_finds_a_new_engine(fresh: TestEngine):
    fresh("version").ok()
    for _ in range(5):
        end(fresh)
        assert "API" in fresh("version").ok().out


def test_a_daemon_that_can_not_start_is_explained(fresh: TestEngine):
    (fresh.root / "bothy.db").write_text("this is no database, and too long to be an empty one" * 100)
    done = fresh("version")
    assert done.code != 0
    assert "bothyd" in done.err
    assert "daemon.log" in done.err
    (fresh.root / "bothy.db").unlink()
    fresh("version").ok()
