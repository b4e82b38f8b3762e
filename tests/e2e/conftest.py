"""The engine, the images and the walls that the end-to-end tests run over."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.engine import Result, TestEngine
from tests.support.sessions import busybox_engine, settling

WALLS = ("container", "vm")
DEBIAN = ("busybox-static", "libnftables1", "libseccomp2", "python3")


@pytest.fixture(scope="session")
def engine() -> Iterator[TestEngine]:
    """An engine with a busybox image, ended and removed at the end of the session."""
    with busybox_engine() as engine:
        yield engine


@pytest.fixture(scope="session")
def machines(engine: TestEngine) -> None:
    """A warm template and a machine disk, so that no test pays for them or counts them as left behind."""
    engine("run", "--rm", "--vm", "busybox", "true", timeout=180).ok()


@pytest.fixture(scope="session")
def debian(engine: TestEngine) -> str:
    """The name of a real Debian image, made of the host's archive, with all that an engine of bothy needs for containers."""
    engine("image", "bootstrap", "debian:bookworm", "--include", ",".join(DEBIAN), timeout=300).ok()
    return "debian:bookworm"


@dataclass(frozen=True)
class Walled:
    """The CLI over one wall: `run` and `create` get the flag that picks it."""

    engine: TestEngine
    wall: str

    def __call__(self, verb: str, *args: str, stdin: str | bytes | None = None, timeout: float = 120) -> Result:
        return self.engine(*self.words(verb, *args), stdin=stdin, timeout=timeout)

    def words(self, verb: str, *args: str) -> list[str]:
        flag = ["--vm"] if self.wall == "vm" and verb in ("run", "create") else []
        return [verb, *flag, *args]


@pytest.fixture(params=[pytest.param(w, marks=pytest.mark.qemu if w == "vm" else ()) for w in WALLS])
def bothy(request: pytest.FixtureRequest, engine: TestEngine) -> Iterator[Walled]:
    """The CLI, over both walls. After the test every workload is removed and everything must have settled."""
    if request.param == "vm":
        request.getfixturevalue("machines")
    with settling(engine):
        yield Walled(engine, request.param)


@pytest.fixture
def settled(engine: TestEngine) -> Iterator[TestEngine]:
    """The engine, for tests that are about neither wall or both at once; everything must settle after them."""
    with settling(engine):
        yield engine


@pytest.fixture
def another(settled: TestEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., TestEngine]]:
    """Makes further engines; each is ended and removed at the end."""
    made: list[TestEngine] = []

    def make(root: Path | None = None, extra: dict[str, str] | None = None) -> TestEngine:
        run = Path(tempfile.mkdtemp(prefix="bothy-test-", dir="/run"))
        made.append(TestEngine(root or tmp_path_factory.mktemp("root"), run, extra))
        return made[-1]

    yield make
    for engine in made:
        engine.shutdown()
