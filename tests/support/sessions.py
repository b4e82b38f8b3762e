"""What fixtures of whole engines have in common."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.engine import TestEngine
from tests.support.settle import assert_settled, become_subreaper, snapshot


@contextmanager
def busybox_engine() -> Iterator[TestEngine]:
    """An engine with a busybox image that has run once; ended and removed afterwards. Fails the test for who is not root."""
    if os.geteuid():
        pytest.fail("tests of a whole engine need root")
    become_subreaper()
    root = Path(tempfile.mkdtemp(prefix="bothy-test-", dir="/var/tmp"))
    run = Path(tempfile.mkdtemp(prefix="bothy-test-", dir="/run"))
    engine = TestEngine(root, run)
    try:
        engine("image", "bootstrap", "busybox", timeout=120).ok()
        engine("run", "--rm", "busybox", "true").ok()
        yield engine
    finally:
        engine.shutdown()


@contextmanager
def settling(engine: TestEngine) -> Iterator[None]:
    """What the block leaves behind of workloads is removed, and then there must be nothing more than before it."""
    before = snapshot(engine)
    yield
    if left := engine("ps", "-aq", "--no-trunc").out.split():
        engine("rm", "-f", "-v", *left).ok()
    assert_settled(engine, before)
