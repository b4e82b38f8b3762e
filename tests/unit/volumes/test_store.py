"""Volumes on disk: made whole or not at all, found again, removed only when nobody has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from bothy.errors import Broken, Conflict, Invalid, NotFound, Unsupported
from bothy.paths import Paths
from bothy.volumes.store import Volumes


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "root", tmp_path / "run")


@pytest.fixture
def volumes(paths: Paths) -> Volumes:
    return Volumes(paths)


def test_a_volume_is_found_again(volumes: Volumes, paths: Paths) -> None:
    made = volumes.create("data", labels={"a": "b"})
    assert Volumes(paths).get("data") == made
    assert Path(made.mountpoint) == paths.volumes / "data" / "_data"
    assert Path(made.mountpoint).is_dir()
    assert volumes.list() == [made]
    assert made.to_api() == {
        "CreatedAt": made.created,
        "Driver": "local",
        "Labels": {"a": "b"},
        "Mountpoint": made.mountpoint,
        "Name": "data",
        "Options": None,
        "Scope": "local",
    }


def test_the_same_name_is_the_same_volume(volumes: Volumes, tmp_path: Path) -> None:
    assert volumes.create("data") == volumes.create("data", labels={"other": ""})
    with pytest.raises(Conflict):
        volumes.create("data", options={"type": "none", "o": "bind", "device": str(tmp_path)})


def test_without_a_name_it_is_anonymous(volumes: Volumes) -> None:
    made = volumes.create()
    assert len(made.name) == 64
    assert made.anonymous
    assert not volumes.create("named").anonymous


@pytest.mark.parametrize("name", ["a", "../up", ".hidden", "a/b", "white space", "-dash", "x" * 256, "new\nline", "ok\n"])
def test_names_that_are_none(volumes: Volumes, name: str) -> None:
    with pytest.raises(Invalid):
        volumes.create(name)
    with pytest.raises(NotFound):
        volumes.get(name)


def test_remove(volumes: Volumes, paths: Paths) -> None:
    volumes.create("data")
    with pytest.raises(Conflict, match="in use by 0123456789ab"):
        volumes.remove("data", ["0123456789abcdef" * 4])
    volumes.remove("data")
    with pytest.raises(NotFound):
        volumes.remove("data")
    volumes.remove("data", force=True)
    assert list(paths.volumes.iterdir()) == []


def test_prune_takes_what_is_anonymous_and_unused(volumes: Volumes) -> None:
    named, used, unused = volumes.create("named"), volumes.create(), volumes.create()
    (Path(unused.mountpoint) / "file").write_bytes(b"x" * 10000)
    names, freed = volumes.prune({used.name})
    assert list(names) == [unused.name]
    assert freed >= 10000
    assert {v.name for v in volumes.list()} == {named.name, used.name}
    assert list(volumes.prune({used.name}, named=True)[0]) == ["named"]


def test_a_volume_that_is_a_folder_of_the_host(volumes: Volumes, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").write_text("")
    made = volumes.create("bound", options={"type": "none", "o": "bind", "device": str(folder)})
    assert made.mountpoint == str(folder)
    assert volumes.copy_up("bound", [tmp_path], "/folder") is False
    volumes.remove("bound")
    assert (folder / "file").exists()


def test_options_that_can_not_be(volumes: Volumes) -> None:
    with pytest.raises(NotFound, match="rexray"):
        volumes.create("data", driver="rexray")
    with pytest.raises(Unsupported):
        volumes.create("data", options={"type": "nfs", "o": "addr=10.0.0.1", "device": ":/x"})
    with pytest.raises(Invalid):
        volumes.create("data", options={"size": "1g"})
    with pytest.raises(Invalid, match="not a folder"):
        volumes.create("data", options={"type": "none", "o": "bind", "device": "/nowhere/at/all"})


def test_what_a_crash_left_is_swept(volumes: Volumes, paths: Paths) -> None:
    volumes.create("data")
    (paths.volumes / ".new-0123" / "_data").mkdir(parents=True)
    (paths.volumes / ".gone-0123").mkdir()
    (paths.volumes / "halfway").mkdir()
    assert [v.name for v in volumes.list()] == ["data"]
    volumes.sweep()
    assert sorted(p.name for p in paths.volumes.iterdir()) == ["data", "halfway"]


def test_a_damaged_file_is_told_and_can_be_removed(volumes: Volumes, paths: Paths) -> None:
    volumes.create("data")
    (paths.volumes / "data" / "volume.json").write_text("{")
    with pytest.raises(Broken, match="damaged"):
        volumes.get("data")
    assert volumes.list() == []
    volumes.remove("data")
    assert not (paths.volumes / "data").exists()
