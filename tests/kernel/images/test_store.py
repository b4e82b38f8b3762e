"""Names, removal and what overlays are made of: Docker's rules."""

from __future__ import annotations

import subprocess

import pytest

from bothy.errors import Conflict, Invalid, NotFound
from bothy.images.store import ImageStore
from tests.kernel.images.conftest import entry, file
from tests.kernel.images.test_archives import Layout


@pytest.fixture
def app(store, tars):
    return store.import_rootfs(tars(file("a", b"a")), "app", ["CMD sh"], "made by a test")


def test_finding_images(store, app):
    for ref in ("app", "app:latest", "docker.io/library/app", "library/app:latest", app.id, app.id[7:], app.id[7:19], app.id[:20]):
        assert store.resolve(ref) == app
    assert app.repo_tags == ["app:latest"]
    assert store.list() == [app]


@pytest.mark.parametrize(
    ("ref", "hint"),
    [
        ("debian:bookworm", "bothy image bootstrap debian:bookworm"), ("busybox", "bothy image bootstrap busybox"), ("nginx", "bothy load"),
        ("0" * 64, "bothy load"), ("sha256:" + "0" * 64, "bothy load"), ("app:other", "bothy import"),
    ],
)  # fmt: skip
def test_an_image_that_is_not_here(store, app, ref, hint):
    with pytest.raises(NotFound, match=f"No such image: {ref}") as raised:
        store.resolve(ref)
    assert hint in raised.value.hint


@pytest.mark.parametrize("ref", ["A", "a:b:c", "", "../x"])
def test_a_name_that_can_be_none(store, ref):
    with pytest.raises(Invalid, match="invalid reference"):
        store.resolve(ref)


def test_import_applies_changes(store, app):
    assert app.config.cmd == ["/bin/sh", "-c", "sh"]
    assert app.comment == "made by a test"
    assert store.history(app)[0]["Comment"] == "made by a test"


def test_tagging(store, app, tars):
    store.tag("app", "me/app:1")
    assert store.resolve("me/app:1").repo_tags == ["app:latest", "me/app:1"]
    other = store.import_rootfs(tars(file("b", b"b")), "app")  # the name moves to the new image
    assert store.resolve("app") == other
    assert store.resolve(app.id).repo_tags == ["me/app:1"]
    for bad in ("A", "app@" + app.id):
        with pytest.raises(Invalid):
            store.tag("app", bad)


def test_removing_by_name_takes_the_image_with_its_last_name(store, app):
    store.tag("app", "app:2")
    assert store.remove("app:2") == [{"Untagged": "app:2"}]
    folder = store.layers(app)[0]
    assert store.remove("app") == [{"Untagged": "app:latest"}, {"Deleted": app.id}, {"Deleted": app.layers[0]}]
    assert not folder.exists()
    assert store.list() == []
    with pytest.raises(NotFound):
        store.remove("app")


def test_removing_by_id(store, app):
    store.tag("app", "app:2")
    assert [next(iter(change)) for change in store.remove(app.id[7:19])] == ["Untagged", "Untagged", "Deleted", "Deleted"]


def test_an_image_in_several_repositories_is_only_removed_by_force(store, app):
    store.tag("app", "other")
    with pytest.raises(Conflict, match=r"must be forced.*multiple repositories"):
        store.remove(app.id)
    assert len(store.remove(app.id, force=True)) == 4


def test_an_image_in_use(store, app):
    used = {app.id: ["0123456789abcdef"]}
    with pytest.raises(Conflict, match=r"must force.*container 0123456789ab is using"):
        store.remove("app", used=used)
    with pytest.raises(Conflict, match=r"must be forced.*stopped container 0123456789ab"):
        store.remove(app.id, used=used)
    with pytest.raises(Conflict, match="cannot be forced"):
        store.remove(app.id, force=True, used={app.id}, running={app.id})
    assert store.remove("app", force=True, used=used) == [{"Untagged": "app:latest"}]
    assert store.layers(store.resolve(app.id))[0].exists()
    assert store.prune(used=used) == ([], 0)
    changes, freed = store.prune()
    assert {"Deleted": app.id} in changes
    assert freed == 1


def test_prune_takes_unnamed_images_or_all_unused(store, tars, app):
    store.import_rootfs(tars(file("b", b"bb")))
    used = store.import_rootfs(tars(file("c", b"ccc")), "used")
    changes, freed = store.prune()
    assert (len(changes), freed) == (2, 2)
    changes, freed = store.prune(dangling_only=False, used={used.id})
    assert {"Untagged": "app:latest"} in changes
    assert freed == 1
    assert store.list() == [used]
    usage = store.usage({used.id})
    assert (usage.images, usage.layers, usage.layers_size, usage.reclaimable) == (1, 1, 3, 0)


def test_a_second_engine_can_not_have_the_store(store, paths):
    code = f"""
from bothy.images.store import ImageStore; from bothy.paths import Paths; from pathlib import Path
ImageStore(Paths(Path({str(paths.root)!r}), Path({str(paths.run)!r})))
"""
    import sys

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "in use by another engine" in done.stderr


def test_the_store_is_found_again(tmp_path, paths, tars):
    store = ImageStore(paths)
    app = store.import_rootfs(tars(file("a", b"a")), "app")
    store.close()
    store = ImageStore(paths)
    assert store.list() == [app]
    store.close()


def overlay(lowers, check):
    """What `check` (a shell command) prints in an overlay of the layers, in a mount namespace of its own."""
    script = f"mount -t overlay o -o lowerdir={':'.join(map(str, lowers))} $1 && cd $1 && {check}"
    folder = lowers[0].parents[2] / "mnt"
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["unshare", "-m", "sh", "-ec", script, "sh", str(folder)], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_overlays_of_layers_see_what_docker_sees(store, tars, tmp_path):
    layout = Layout(tmp_path / "layout" if not (tmp_path / "layout").mkdir() else None)
    base = tars(
        file("gone", b"1"), entry("o"), file("o/old", b"1"), entry("d"), file("d/keep", b"1"), file("x/y", b"1")
    ).read_bytes()
    middle = tars(file(".wh.gone"), entry("o"), file("o/.wh..wh..opq"), file("o/new", b"2"), file("x", b"2")).read_bytes()
    layout.index(layout.image(base, middle, base, middle))
    image = store.resolve(store.load(layout.folder)[0])
    lowers = store.layers(image)
    assert len(lowers) == 2  # each once
    assert overlay(lowers, "find . -type f | sort") == ["./d/keep", "./o/new", "./x"]


def test_nothing_is_seen_below_an_opaque_root(store, tars, tmp_path):
    (tmp_path / "layout").mkdir()
    layout = Layout(tmp_path / "layout")
    layout.index(layout.image(tars(file("old", b"1")).read_bytes(), tars(file(".wh..wh..opq"), file("new", b"2")).read_bytes()))
    (lower,) = store.layers(store.resolve(store.load(layout.folder)[0]))
    assert sorted(path.name for path in lower.iterdir()) == ["new"]


def test_many_layers_fit_the_options_of_one_mount(store, tars, tmp_path):
    (tmp_path / "layout").mkdir()
    layout = Layout(tmp_path / "layout")
    layout.index(layout.image(*[tars(file(f"f{number}", b"x")).read_bytes() for number in range(127)]))
    image = store.resolve(store.load(layout.folder)[0])
    relative = ":".join(path.name for path in store.layers(image))
    assert len(image.layers) == 127
    assert len(relative) < 1000
    disk = store.machine_disk(image)
    listing = subprocess.run(["dump.erofs", "-S", disk], capture_output=True, text=True, check=True).stdout
    assert "127" in listing


def test_too_many_layers_are_refused(store, tars, tmp_path):
    (tmp_path / "layout").mkdir()
    layout = Layout(tmp_path / "layout")
    layout.index(layout.image(*[tars(file(f"f{number}", b"x")).read_bytes() for number in range(128)]))
    with pytest.raises(Invalid, match="128 layers"):
        store.load(layout.folder)
