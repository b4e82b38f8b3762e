"""Parts of folders and of images as detached mounts: taken by descriptor, whatever somebody does to the names meanwhile."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bothy.linux import mounts, syscalls


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    before = Path("/proc/self/mountinfo").read_text(), len(os.listdir("/proc/self/fd"))
    yield
    assert (Path("/proc/self/mountinfo").read_text(), len(os.listdir("/proc/self/fd"))) == before


def names(tree: int) -> list[str]:
    """What is in a detached mount, which is closed."""
    folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=tree)
    try:
        return sorted(os.listdir(folder))
    finally:
        os.close(folder)
        os.close(tree)


def test_a_part_is_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_text("")
    (tmp_path / "link").symlink_to("a/b")
    (tmp_path / "up").symlink_to("a/../a")
    assert names(mounts.clone_part(str(tmp_path), "a/b")) == ["file"]
    assert names(mounts.clone_part(str(tmp_path), "link")) == ["file"]
    assert names(mounts.clone_part(str(tmp_path), "up")) == ["b"]
    assert names(mounts.clone_part(str(tmp_path))) == ["a", "link", "up"]
    with pytest.raises(FileNotFoundError):
        mounts.clone_part(str(tmp_path), "a/c")


@pytest.mark.parametrize("target", ["/", "..", "../outside", "a/../../outside", "/proc/self/root"])
def test_no_link_leads_out(tmp_path: Path, target: str) -> None:
    (tmp_path / "inside" / "a").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "inside" / "link").symlink_to(target)
    with pytest.raises(OSError, match="cross-device") as caught:
        mounts.clone_part(str(tmp_path / "inside"), "link")
    assert caught.value.errno == errno.EXDEV


def test_nobody_is_quick_enough_to_lead_it_out(tmp_path: Path) -> None:
    """Somebody changes a folder for a link to elsewhere and back, all the time."""
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    (inside / "good").mkdir(parents=True)
    (inside / "good" / "mine").write_text("")
    (inside / "bad").symlink_to(outside)
    outside.mkdir()
    (outside / "secret").write_text("")
    ended = threading.Event()
    turns = [0]

    def flip() -> None:
        while not ended.is_set():
            syscalls.renameat2(str(inside / "good"), str(inside / "bad"), syscalls.RENAME_EXCHANGE)
            turns[0] += 1

    thread = threading.Thread(target=flip)
    thread.start()
    seen, reasons = {"refused": 0, "mine": 0}, set()
    while min(seen.values()) < 100:
        try:
            found = names(mounts.clone_part(str(inside), "good"))
        except OSError as exc:
            reasons.add(exc.errno)
            seen["refused"] += 1
        else:
            assert found == ["mine"]
            seen["mine"] += 1
    ended.set()
    thread.join()
    assert turns[0] > 10
    assert reasons <= {errno.EXDEV, errno.EAGAIN}


def in_a_namespace(work: Callable[[], object]) -> object:
    """What a function returns, or raises, in a thread with a mount namespace of its own."""
    outcome: list[object] = []

    def run() -> None:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        mounts.make_private()
        try:
            outcome.append(work())
        except OSError as exc:
            outcome.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if isinstance(outcome[0], OSError):
        raise outcome[0]
    return outcome[0]


def test_layers_are_put_together_aside(tmp_path: Path) -> None:
    top, bottom = tmp_path / "layers" / "top", tmp_path / "layers" / "bottom"
    (top / "sub").mkdir(parents=True)
    (bottom / "sub").mkdir(parents=True)
    (bottom / "sub" / "kept").write_text("")
    (bottom / "sub" / "gone").write_text("")
    (top / "sub" / "new").write_text("")
    (top / "escape").symlink_to("/sub")
    os.mknod(top / "sub" / "gone", stat.S_IFCHR, 0)
    both = [str(top), str(bottom)]
    for layers, subpath, expected in (
        (both, "", ["escape", "sub"]),
        (both, "sub", ["kept", "new"]),
        (both, "escape", ["kept", "new"]),
        ([str(bottom)], "", ["sub"]),
        ([str(bottom)], "sub", ["gone", "kept"]),
    ):
        assert in_a_namespace(lambda: names(mounts.clone_layers(layers, subpath))) == expected  # noqa: B023
    for layers in (both, [str(bottom)]):
        with pytest.raises(FileNotFoundError):
            in_a_namespace(lambda: mounts.clone_layers(layers, "nowhere"))  # noqa: B023


def test_layers_can_not_be_written_to(tmp_path: Path) -> None:
    for name in ("top", "bottom"):
        (tmp_path / "layers" / name).mkdir(parents=True)

    def write(layers: list[str]) -> None:
        tree = mounts.clone_layers(layers)
        try:
            os.mkdir("new", dir_fd=tree)
        finally:
            os.close(tree)

    for layers in ([str(tmp_path / "layers" / "top"), str(tmp_path / "layers" / "bottom")], [str(tmp_path / "layers" / "top")]):
        with pytest.raises(OSError, match="Read-only"):
            in_a_namespace(lambda: write(layers))  # noqa: B023
    assert list((tmp_path / "layers" / "top").iterdir()) == []
