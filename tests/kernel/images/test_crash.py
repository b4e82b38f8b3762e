"""kill -9 in the middle, a full disk, tools that are missing: the next start finds a whole store, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bothy.errors import NotFound
from bothy.images.store import ImageStore
from tests.kernel.images.conftest import assert_settled, file

OPEN = """
import sys
from pathlib import Path
from bothy.errors import BothyError
from bothy.images.store import ImageStore
from bothy.paths import Paths
store = ImageStore(Paths(Path(sys.argv[1]), Path(sys.argv[2])))
"""


def start(code: str, paths, *args: str, env: dict[str, str] | None = None, **more) -> subprocess.Popen:
    argv = [sys.executable, "-c", OPEN + code, str(paths.root), str(paths.run), *args]
    return subprocess.Popen(argv, env={**os.environ, **(env or {})}, text=True, **more)


def descendants(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *descendants(child)]
    return found


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 10
    while any(running(pid) for pid in pids):
        assert time.monotonic() < deadline, [pid for pid in pids if running(pid)]
        time.sleep(0.01)


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture
def archive(tars, tmp_path, paths):
    """An archive of three images, some of whose layers are shared, that takes a while."""
    from tests.kernel.images.test_archives import Layout

    folder = tmp_path / "layout"
    folder.mkdir()
    layout = Layout(folder)
    layers = [tars(*[file(f"{n}/{m}", os.urandom(3000)) for m in range(700)]).read_bytes() for n in range(4)]
    names = [{"io.containerd.image.name": f"docker.io/library/app:{n}"} for n in range(3)]
    layout.index(*[layout.image(layers[n], layers[n + 1], annotations=name) for n, name in enumerate(names)])
    return folder


@pytest.mark.parametrize("delay", [0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6])
def test_kill_while_loading(paths, archive, delay):
    loader = start("print('ready', flush=True); store.load(sys.argv[3])", paths, str(archive), stdout=subprocess.PIPE)
    assert loader.stdout.readline() == "ready\n"
    time.sleep(delay)
    workers = descendants(loader.pid)
    loader.kill()
    loader.wait()
    loader.stdout.close()
    wait_until_gone(workers)
    store = ImageStore(paths)
    assert_settled(store, paths)
    assert list((paths.images / "tmp").iterdir()) == []
    for image in store.list():
        for folder in store.layers(image):
            assert len(list(next(folder.iterdir()).iterdir())) == 700
    assert sorted(store.load(archive)) == ["app:0", "app:1", "app:2"]
    store.close()


@pytest.mark.parametrize("delay", [0.5, 3.0])
def test_kill_while_bootstrapping_debian(paths, delay):
    mounts = Path("/proc/self/mountinfo").read_text()
    maker = start("store.bootstrap('debian:bookworm')", paths)
    time.sleep(delay)
    family = descendants(maker.pid)
    assert family
    maker.kill()
    maker.wait()
    wait_until_gone(family)
    assert Path("/proc/self/mountinfo").read_text() == mounts
    store = ImageStore(paths)
    assert store.list() == []
    assert list((paths.images / "tmp").iterdir()) == []
    assert_settled(store, paths)
    store.close()


FULL = """
for step in sys.argv[4:]:
    try:
        print(step, eval(step))
    except BothyError as exc:
        print(step, type(exc).__name__, exc.message)
left = [path for place in ("tmp", "layers", "recipes", "blobs/sha256", "disks") for path in (Path(sys.argv[1]) / "images" / place).iterdir()]
print("left", left)
"""


def on_small_disk(paths, size: str, *steps: str) -> list[str]:
    """What the steps print when the store is on a tmpfs of that size, in a mount namespace of its own."""
    paths.root.mkdir(parents=True)
    inside = [sys.executable, "-c", OPEN + FULL, str(paths.root), str(paths.run), "--", *steps]
    script = 'mount -t tmpfs -o "size=$1" none "$2"; shift 2; exec "$@"'
    argv = ["unshare", "--mount", "sh", "-ec", script, "sh", size, str(paths.root), *inside]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()


def test_a_full_disk_is_said_and_nothing_is_left(paths, tars, tmp_path):
    big = tars(file("big", bytes(30 << 20)))
    import_step = f"store.import_rootfs({str(big)!r})"
    lines = on_small_disk(paths, "16m", import_step, import_step)
    assert lines == [f"{import_step} Unavailable 1.tar: no space left on the device"] * 2 + ["left []"]


def test_many_files_on_a_full_disk(paths, tars):
    many = tars(*[file(f"f{n}", b"x" * 100) for n in range(6000)])
    step = f"store.import_rootfs({str(many)!r})"
    lines = on_small_disk(paths, "10m,nr_inodes=3000", step)
    assert lines == [f"{step} Unavailable 1.tar: no space left on the device", "left []"]


def test_a_full_disk_under_a_compressed_archive(paths, tars):
    big = tars(file("big", bytes(30 << 20)))
    subprocess.run(["gzip", big], check=True)
    step = f"store.load({str(big)!r} + '.gz')"
    assert on_small_disk(paths, "16m", step) == [f"{step} Unavailable 1.tar.gz: no space left on the device", "left []"]


def test_a_full_disk_under_a_machine_disk_and_an_archive(paths, tars):
    tar = tars(file("big", os.urandom(10 << 20)))
    lines = on_small_disk(
        paths, "16m", f"store.import_rootfs({str(tar)!r}, 'x')", "store.machine_disk(store.resolve('x'))",
        "store.save(['x'], Path(sys.argv[1]) / 'out.tar')", "store.remove('x')", "(Path(sys.argv[1]) / 'out.tar').exists()",
    )  # fmt: skip
    assert "machine disk: no space left on the device" in lines[1]
    assert "save: no space left on the device" in lines[2]
    assert "Deleted" in lines[3]
    assert lines[-1] == "left []"


def test_tools_that_are_missing(paths, tmp_path):
    code = """
for step in ("store.bootstrap('debian:bookworm')", "store.machine_disk(store.resolve('busybox'))"):
    try:
        eval(step)
    except BothyError as exc:
        print(type(exc).__name__, exc.message, "|", exc.hint)
"""
    store = ImageStore(paths)
    store.bootstrap("busybox")
    store.close()
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("rm", "sync"):
        (tools / tool).symlink_to(f"/bin/{tool}")
    done = start(code, paths, env={"PATH": str(tools)}, stdout=subprocess.PIPE)
    out, _ = done.communicate()
    assert out.splitlines() == [
        "NotFound mmdebstrap is not installed | apt-get install mmdebstrap",
        "NotFound mkfs.erofs is not installed | apt-get install erofs-utils",
    ]


def test_busybox_that_is_missing(tmp_path):
    from bothy.images import busybox

    with (tmp_path / "out").open("wb") as out, pytest.raises(NotFound, match="busybox is not installed") as raised:
        busybox.write_rootfs(out, str(tmp_path / "busybox"))
    assert "busybox-static" in raised.value.hint


def test_a_dead_worker_is_noticed(paths, tars):
    """kill -9 of the worker alone: an error, and nothing is left."""
    tar = tars(*[file(f"{n}", os.urandom(3000)) for n in range(20_000)])
    loader = start(
        "\ntry: store.import_rootfs(sys.argv[3])\nexcept BothyError as exc: print(type(exc).__name__, exc.message)",
        paths, str(tar), stdout=subprocess.PIPE,
    )  # fmt: skip
    deadline = time.monotonic() + 10
    while not (workers := descendants(loader.pid)) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(workers[0], signal.SIGKILL)
    out, _ = loader.communicate()
    assert out == "Broken 1.tar: worker ended with status -9\n"
    store = ImageStore(paths)
    assert_settled(store, paths)
    assert list((paths.images / "tmp").iterdir()) == []
    store.close()
