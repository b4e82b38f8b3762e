"""`--mount` in all its forms: what is meant, and Docker's words for what can not be."""

from __future__ import annotations

from typing import Any

import pytest

from bothy.engine import binds, mountspecs
from bothy.engine.containers import mounting
from bothy.engine.model import MountPoint, MountRecord
from bothy.engine.mountspecs import Wanted
from bothy.errors import Invalid
from bothy.linux import mountinfo


def point(kind: str, source: str = "", target: str = "/t", *, ro: bool = False, **options: dict[str, Any]) -> MountPoint:
    return MountPoint(kind, source, target, ro, **{f"{name}_options": value for name, value in options.items()})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (point("bind", "/s"), ["rbind", "rw", "rprivate"]),
        (point("bind", "/s", ro=True), ["rbind", "rro", "rprivate"]),
        (point("bind", "/s", ro=True, bind={"ReadOnlyNonRecursive": True}), ["rbind", "ro", "rprivate"]),
        (point("bind", "/s", ro=True, bind={"ReadOnlyForceRecursive": True, "Propagation": "rprivate"}), ["rbind", "rro", "rprivate"]),
        (point("bind", "/s", ro=True, bind={"NonRecursive": True}), ["bind", "ro", "rprivate"]),
        (point("bind", "/s", bind={"Propagation": "rslave"}), ["rbind", "rw", "rslave"]),
        (point("volume", "vol", volume={"Subpath": "a/./b/../c"}), ["rbind", "rw", "rprivate", "X-mount.subdir=a/c"]),
        (point("volume", "vol", volume={"Subpath": "."}), ["rbind", "rw", "rprivate"]),
        (point("tmpfs"), ["noexec", "nosuid", "nodev"]),
        (point("tmpfs", ro=True, tmpfs={"SizeBytes": 65536, "Mode": 0o1770, "Options": [["exec"], ["uid", "7"]]}),
         ["nosuid", "nodev", "ro", "size=65536", "mode=1770", "exec", "uid=7"]),
        (point("image", "busybox", image={"Subpath": "bin"}), ["rbind", "rro", "", "X-mount.subdir=bin"]),
    ],
)  # fmt: skip
def test_what_is_mounted(given: MountPoint, words: list[str]) -> None:
    assert mountspecs.read(given).words() == words


def test_what_a_volume_is_made_of() -> None:
    options = {"NoCopy": True, "Labels": {"a": "b"}, "DriverConfig": {"Name": "local", "Options": {"size": "10m"}}}
    found = mountspecs.read(point("volume", "vol", volume=options))
    assert (found.copy_up, found.labels, found.driver, found.driver_options) == (False, {"a": "b"}, "local", {"size": "10m"})
    assert mountspecs.read(point("volume")).source == ""
    assert mountspecs.read(point("bind", "/s", bind={"CreateMountpoint": True})).make_source
    assert not mountspecs.read(point("bind", "/s")).make_source


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (point("bind", "/s", ""), 'invalid mount config for type "bind": field Target must not be empty'),
        (point("bind", "/s", "/"), "invalid mount config for type \"bind\": invalid specification: destination can't be '/'"),
        (point("bind", "/s", "x"), "invalid mount config for type \"bind\": invalid mount path: 'x' mount path must be absolute"),
        (point("bind"), 'invalid mount config for type "bind": field Source must not be empty'),
        (point("bind", "s"), "invalid mount config for type \"bind\": invalid mount path: 's' mount path must be absolute"),
        (point("bind", "/s", bind={"Propagation": "far"}), 'invalid mount config for type "bind": invalid propagation mode: far'),
        (point("bind", "/s", volume={"NoCopy": True}), 'invalid mount config for type "bind": field VolumeOptions must not be specified'),
        (point("volume", "v1", bind={"Propagation": "slave"}),
         'invalid mount config for type "volume": field BindOptions must not be specified'),
        (point("volume", ro=True), 'invalid mount config for type "volume": must not set ReadOnly mode when using anonymous volumes'),
        (point("volume", volume={"Subpath": "a"}), 'invalid mount config for type "volume": must not set Subpath when using anonymous volumes'),
        (point("volume", "v1", volume={"Subpath": "../a"}),
         'invalid mount config for type "volume": subpath must be a relative path within the volume'),
        (point("volume", "v1", volume={"Subpath": "/a"}),
         'invalid mount config for type "volume": subpath must be a relative path within the volume'),
        (point("tmpfs", "x"), 'invalid mount config for type "tmpfs": field Source must not be specified'),
        (point("tmpfs", tmpfs={"SizeBytes": "big"}), 'invalid mount config for type "tmpfs": SizeBytes: expected a number'),
        (point("tmpfs", tmpfs={"Options": [["a", "b", "c"]]}), 'invalid mount config for type "tmpfs": invalid option array length'),
        (point("tmpfs", tmpfs={"Options": [["lowerdir", "/"]]}), 'invalid tmpfs option ["lowerdir=/"] for /t'),
        (point("image"), 'invalid mount config for type "image": field Source must not be empty'),
        (point("image", "i", image={"Subpath": ".."}), 'invalid mount config for type "image": subpath must be a relative path within the volume'),
        (point("npipe", "x"), 'invalid mount config for type "npipe": mount type unknown'),
        (point("volume", "v1", volume={"Labels": {"a": 1}}), 'invalid mount config for type "volume": Labels: expected texts'),
    ],
)  # fmt: skip
def test_what_is_refused(given: MountPoint, words: str) -> None:
    with pytest.raises(Invalid) as caught:
        mountspecs.read(given)
    assert caught.value.message == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("/a:b", "invalid volume specification: '/a:b': invalid mount config for type \"bind\": invalid mount path: 'b' mount path must be absolute"),
        ("/a:/b:what", "invalid mode: what"),
        ("/a:/b:ro:x", "invalid volume specification: '/a:/b:ro:x'"),
        ("/a:ro", "invalid volume specification: '/a:ro'"),
        ("vol:/b:rshared",
         "invalid volume specification: 'vol:/b:rshared': invalid mount config for type \"volume\": field BindOptions must not be specified"),
    ],
)  # fmt: skip
def test_binds_are_refused_in_dockers_words(text: str, words: str) -> None:
    with pytest.raises(Invalid) as caught:
        binds.bind(text)
    assert caught.value.message == words


def test_the_mounts_of_another_workload() -> None:
    records = [
        MountRecord("bind", "/s", "/b", propagation="rslave", options=["bind", "rw", "rslave"]),
        MountRecord("volume", "/v/_data", "/v", False, "vol", subpath="sub", options=["rbind", "rro", "rprivate"], copy_up=True),
        MountRecord("tmpfs", "", "/t", options=["noexec"], listed=False),
        MountRecord("image", "sha256:1", "/i", False, "busybox"),
    ]
    assert binds.inherited(records) == [
        Wanted("bind", "/b", "/s", copy_up=False, propagation="rslave", recursive=False),
        Wanted("volume", "/v", "vol", True, copy_up=False, subpath="sub"),
        Wanted("image", "/i", "busybox", True, copy_up=False),
    ]
    assert all(mount.read_only for mount in binds.inherited(records, "ro"))
    assert [mount.read_only for mount in binds.inherited(records, "rw")] == [False, True, True]
    for mode in ("nocopy", "rslave", "what"):
        with pytest.raises(Invalid, match=f"invalid mode: {mode}"):
            binds.inherited(records, mode)


def test_propagation_needs_a_shared_mount(monkeypatch: pytest.MonkeyPatch) -> None:
    table = [
        mountinfo.Mounted("/", "ext4", "/dev/vda", shared=False, slave=False),
        mountinfo.Mounted("/mnt/shared", "tmpfs", "none", shared=True, slave=False),
        mountinfo.Mounted("/mnt/slave", "tmpfs", "none", shared=False, slave=True),
    ]
    monkeypatch.setattr(mountinfo, "mounts", lambda: table)

    def check(source: str, propagation: str) -> None:
        mounting.check_propagation([MountRecord("bind", source, "/x", propagation=propagation)])

    for source, propagation in (
        ("/mnt/shared/x", "rshared"),
        ("/mnt/shared", "slave"),
        ("/mnt/slave", "rslave"),
        ("/x", "rprivate"),
    ):
        check(source, propagation)
    for source, propagation, words in (
        ("/srv", "rshared", "path /srv is mounted on / but it is not a shared mount"),
        ("/srv", "slave", "path /srv is mounted on / but it is not a shared or slave mount"),
        ("/mnt/slave", "shared", "path /mnt/slave is mounted on /mnt/slave but it is not a shared mount"),
    ):
        with pytest.raises(Invalid) as caught:
            check(source, propagation)
        assert caught.value.message == words
