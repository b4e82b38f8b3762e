"""Volumes on disk: made whole or not at all, found again, removed only when nobody has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from bothy.errors import Broken, Conflict, Invalid, NotFound
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
    ids = ["0123456789abcdef" * 4, "fedcba9876543210" * 4]
    with pytest.raises(Conflict) as caught:
        volumes.remove("data", lambda: ids)
    assert caught.value.message == f"remove data: volume is in use - [{ids[0]}, {ids[1]}]"
    volumes.remove("data")
    with pytest.raises(NotFound):
        volumes.remove("data")
    volumes.remove("data", force=True)
    assert list(paths.volumes.iterdir()) == []


def test_prune_takes_what_is_anonymous_and_unused(volumes: Volumes) -> None:
    named, used, unused = volumes.create("named"), volumes.create(), volumes.create()
    (Path(unused.mountpoint) / "file").write_bytes(b"x" * 10000)

    def users(name: str) -> list[str]:
        return ["workload"] if name == used.name else []

    names, freed = volumes.prune(users, lambda volume: volume.anonymous)
    assert list(names) == [unused.name]
    assert freed >= 10000
    assert {v.name for v in volumes.list()} == {named.name, used.name}
    assert list(volumes.prune(users, lambda _: True)[0]) == ["named"]


def test_words_of_errors_are_dockers(volumes: Volumes) -> None:
    for call, words in (
        (
            lambda: volumes.create("data", driver="rexray"),
            'create data: error looking up volume plugin rexray: plugin "rexray" not found',
        ),
        (lambda: volumes.create("d"), "create d: volume name is too short, names should be at least two alphanumeric characters"),
        (lambda: volumes.create("da", options={"colour": "red"}), 'create da: invalid option: "colour"'),
        (lambda: volumes.get("data"), "get data: no such volume"),
        (lambda: volumes.remove("data"), "get data: no such volume"),
    ):
        with pytest.raises((Invalid, NotFound)) as caught:
            call()
        assert caught.value.message == words


def test_rename(volumes: Volumes) -> None:
    made = volumes.create("data", labels={"a": "b"})
    (Path(made.mountpoint) / "file").write_text("kept")
    volumes.create("other")
    with pytest.raises(Conflict, match="volume other exists"):
        volumes.rename("data", "other")
    with pytest.raises(Conflict, match="volume is in use - \\[one, two\\]"):
        volumes.rename("data", "new", lambda: ["two", "one"])
    renamed = volumes.rename("data", "new")
    assert (renamed.name, renamed.labels, renamed.created) == ("new", {"a": "b"}, made.created)
    assert (Path(renamed.mountpoint) / "file").read_text() == "kept"
    assert [v.name for v in volumes.list()] == ["new", "other"]
    with pytest.raises(NotFound):
        volumes.rename("data", "newer")
    with pytest.raises(Invalid):
        volumes.rename("new", "../up")


def test_what_a_crash_left_is_swept(volumes: Volumes, paths: Paths) -> None:
    volumes.create("data")
    (paths.volumes / ".new-0123" / "_data").mkdir(parents=True)
    (paths.volumes / ".gone-0123").mkdir()
    (paths.volumes / "halfway").mkdir()
    assert [v.name for v in volumes.list()] == ["data"]
    volumes.recover()
    assert sorted(p.name for p in paths.volumes.iterdir()) == ["data", "halfway"]


def test_a_damaged_file_is_told_and_can_be_removed(volumes: Volumes, paths: Paths) -> None:
    volumes.create("data")
    (paths.volumes / "data" / "volume.json").write_text("{")
    with pytest.raises(Broken, match="damaged"):
        volumes.get("data")
    assert volumes.list() == []
    volumes.remove("data")
    assert not (paths.volumes / "data").exists()


def test_what_is_ready_needs_no_work(volumes: Volumes) -> None:
    assert not volumes.is_ready("data", {}, copy_up=False)
    folder = Path(volumes.create("data").mountpoint)
    assert volumes.is_ready("data", {}, copy_up=False)
    assert not volumes.is_ready("data", {}, copy_up=True)
    assert not volumes.is_ready("data", {"size": "16m"}, copy_up=False)
    (folder / "file").write_text("")
    assert volumes.is_ready("data", {}, copy_up=True)
    volumes.create("bound", options={"type": "none", "o": "bind", "device": str(folder)})
    assert not volumes.is_ready("bound", {}, copy_up=False)


def test_a_damaged_name_is_not_taken(volumes: Volumes, paths: Paths) -> None:
    (paths.volumes / "data" / "_data").mkdir(parents=True)
    with pytest.raises(Conflict, match="exists and is damaged"):
        volumes.create("data")
    assert sorted(p.name for p in paths.volumes.iterdir()) == ["data"]


def test_sizes_are_of_the_data(volumes: Volumes) -> None:
    folder = Path(volumes.create("data").mountpoint)
    (folder / "file").write_bytes(b"x" * 100_000)
    (folder / "twin").hardlink_to(folder / "file")
    assert 100_000 <= volumes.usage("data") < 150_000
    volumes.create("server", options={"type": "nfs", "o": "addr=127.0.0.1", "device": ":/x"})
    assert volumes.usage("server") == -1
