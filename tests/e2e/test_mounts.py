"""`--mount` and `-v` in all their forms, over both walls: what is seen inside, what inspect says, what is refused."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bothy.api.client import Client
from tests.e2e.conftest import Walled
from tests.support.engine import TestEngine, await_


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Path]:
    """A folder of the host with another file system below it."""
    below = tmp_path / "below"
    below.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "below", below], check=True)
    (tmp_path / "file").write_text("above\n")
    (below / "file").write_text("below\n")
    yield tmp_path
    subprocess.run(["umount", "-l", below], check=True)


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A folder that is a shared mount, in which others are to be mounted."""
    subprocess.run(["mount", "-t", "tmpfs", "shared", tmp_path], check=True)
    subprocess.run(["mount", "--make-shared", tmp_path], check=True)
    (tmp_path / "late").mkdir()
    yield tmp_path
    subprocess.run(["umount", "-R", "-l", tmp_path], check=True)


@pytest.fixture(autouse=True)
def _no_volume_is_left(engine: TestEngine) -> Iterator[None]:
    yield
    engine("rm", "-f", *engine("ps", "-aq").out.split())
    engine("volume", "rm", "-f", *[name for name in engine("volume", "ls", "-q").out.split() if name.startswith("m-")])


def words(**fields: str) -> str:
    return ",".join(f"{key.replace('_', '-')}={value}" if value else key.replace("_", "-") for key, value in fields.items())


# -- bind


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "above below wrote wrote"),
        ({"readonly": ""}, "above below no no"),
        ({"readonly": "", "bind_recursive": "readonly"}, "above below no no"),
        ({"readonly": "", "bind_recursive": "writable"}, "above below no wrote"),
        ({"bind_recursive": "disabled"}, "above none wrote wrote"),
        ({"bind_nonrecursive": "", "readonly": ""}, "above none no no"),
    ],
)
def test_what_is_below_a_bind(bothy: Walled, source: Path, options: dict[str, str], expected: str) -> None:
    mount = words(type="bind", source=str(source), target="/m", **options)
    script = "cat /m/file; cat /m/below/file 2>/dev/null || echo none; for d in /m /m/below; do touch $d/new 2>/dev/null && echo wrote || echo no; done"
    assert bothy("run", "--rm", "--mount", mount, "busybox", "sh", "-c", script).ok().out.split() == expected.split()


def test_a_source_that_is_not_there(bothy: Walled, tmp_path: Path) -> None:
    missing = tmp_path / "made" / "here"
    refused = bothy("run", "--rm", "--mount", f"type=bind,source={missing},target=/m", "busybox", "true")
    assert refused.code == 125
    assert f'invalid mount config for type "bind": bind source path does not exist: {missing}' in refused.err
    mount = f"type=bind,source={missing},target=/m,bind-create-mountpoint"
    bothy("run", "--rm", "--mount", mount, "busybox", "touch", "/m/file").ok()
    assert [p.name for p in missing.iterdir()] == ["file"]


@pytest.mark.parametrize("propagation", ["rslave", "slave", "rshared"])
def test_mounts_that_come_later_are_seen(bothy: Walled, shared: Path, propagation: str) -> None:
    mount = f"type=bind,source={shared},target=/m,bind-propagation={propagation}"
    bothy("run", "-d", "--name", "m-slave", "--mount", mount, "busybox", "sleep", "600").ok()
    bothy("run", "-d", "--name", "m-private", "-v", f"{shared}:/m", "busybox", "sleep", "600").ok()
    subprocess.run(["mount", "-t", "tmpfs", "late", shared / "late"], check=True)
    (shared / "late" / "file").write_text("late\n")
    await_(lambda: bothy("exec", "m-slave", "cat", "/m/late/file").out == "late\n", "the mount to be seen")
    assert bothy("exec", "m-private", "ls", "/m/late").ok().out == ""
    subprocess.run(["umount", shared / "late"], check=True)
    await_(lambda: bothy("exec", "m-slave", "ls", "/m/late").out == "", "the mount to be gone")
    assert bothy.engine.inspect("m-slave")["Mounts"][0]["Propagation"] == propagation


def test_what_a_container_mounts_is_seen_outside(settled: TestEngine, shared: Path) -> None:
    """Of one with the host's ids: the kernel lets nothing out of a user namespace."""
    mount = f"type=bind,source={shared},target=/m,bind-propagation=rshared"
    settled("run", "--rm", "--privileged", "--mount", mount, "busybox", "mount", "-t", "tmpfs", "mine", "/m/late").ok()
    assert any(line.split()[4] == str(shared / "late") for line in Path("/proc/self/mountinfo").read_text().splitlines())


def test_propagation_needs_a_shared_mount(bothy: Walled, tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "private", tmp_path], check=True)
    try:
        subprocess.run(["mount", "--make-private", tmp_path], check=True)
        for propagation, kind in (("rshared", "a shared mount"), ("rslave", "a shared or slave mount")):
            done = bothy("run", "--rm", "-v", f"{tmp_path}:/m:{propagation}", "busybox", "true")
            assert done.code != 0
            assert f"path {tmp_path} is mounted on {tmp_path} but it is not {kind}" in done.err
    finally:
        subprocess.run(["umount", tmp_path], check=True)


# -- volumes


def test_a_part_of_a_volume(bothy: Walled) -> None:
    bothy(
        "run",
        "--rm",
        "-v",
        "m-data:/data",
        "busybox",
        "sh",
        "-c",
        "mkdir -p /data/a/b; echo deep > /data/a/b/file; echo top > /data/file",
    ).ok()
    mounts = (
        "--mount",
        "source=m-data,target=/part,volume-subpath=a/b",
        "--mount",
        "source=m-data,target=/one,volume-subpath=file,readonly",
    )
    script = "ls /part; cat /part/file /one; echo more > /part/new; echo x >> /one || true"
    done = bothy("run", "--rm", *mounts, "busybox", "sh", "-c", script).ok()
    assert done.out.split() == ["file", "deep", "top"]
    assert "Read-only" in done.err
    assert bothy("run", "--rm", "-v", "m-data:/data", "busybox", "ls", "/data/a/b").ok().out.split() == ["file", "new"]
    missing = bothy("run", "--rm", "--mount", "source=m-data,target=/part,volume-subpath=no/where", "busybox", "true")
    assert "cannot access path" in missing.err
    assert "no such file or directory" in missing.err
    bothy("volume", "rm", "m-data").ok()


def test_a_part_of_a_volume_never_leads_out_of_it(bothy: Walled, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    script = f"ln -s {tmp_path} /data/out; ln -s ../../../../../../..{tmp_path} /data/up; ln -s /proc/1/root{tmp_path} /data/magic; ln -s real /data/link; mkdir /data/real"
    bothy("run", "--rm", "-v", "m-data:/data", "busybox", "sh", "-c", script).ok()
    for link in ("out", "up", "magic", "out/secret"):
        mount = f"source=m-data,target=/part,volume-nocopy,volume-subpath={link}"
        done = bothy("run", "--rm", "--mount", mount, "busybox", "sh", "-c", "cat /part/secret /part")
        assert done.code != 0
        assert "escapes from the volume" in done.err, done.err
    mount = "source=m-data,target=/part,volume-nocopy,volume-subpath=link"
    bothy("run", "--rm", "--mount", mount, "busybox", "touch", "/part/file").ok()
    assert bothy("run", "--rm", "-v", "m-data:/data", "busybox", "ls", "/data/real").ok().out.split() == ["file"]
    bothy("volume", "rm", "m-data").ok()


def test_a_volume_is_made_as_the_mount_says(bothy: Walled) -> None:
    mount = "source=m-made,target=/etc,volume-label=colour=red,volume-opt=size=16m,volume-driver=local"
    out = (
        bothy("run", "--rm", "--mount", mount, "busybox", "sh", "-c", "df -m /etc | tail -1; ls /etc/passwd").ok().out.splitlines()
    )
    assert int(out[0].split()[1]) <= 16
    assert out[1] == "/etc/passwd"
    found = bothy.engine.json("volume", "inspect", "m-made")[0]
    assert (found["Labels"], found["Options"]) == ({"colour": "red"}, {"size": "16m"})
    mount = "source=m-empty,target=/etc,volume-nocopy"
    assert "passwd" not in bothy("run", "--rm", "--mount", mount, "busybox", "ls", "/etc").ok().out
    bothy("volume", "rm", "m-made", "m-empty").ok()


# -- tmpfs and images


def test_tmpfs(bothy: Walled) -> None:
    mounts = (
        "--mount", "type=tmpfs,target=/t,tmpfs-size=64k,tmpfs-mode=1770",
        "--mount", "type=tmpfs,target=/x,tmpfs-opt=exec,tmpfs-opt=uid=7",
        "--mount", "type=tmpfs,target=/r,readonly",
    )  # fmt: skip
    modes = "stat -c %a /new /etc; "
    mounts = (*mounts, "--tmpfs", "/new", "--tmpfs", "/etc")
    assert bothy("run", "--rm", *mounts, "busybox", "sh", "-c", modes).ok().out.split() == ["1777", "755"]
    script = "stat -c %a /t; stat -c %u /x; echo 'echo ran' > /x/s; chmod +x /x/s; /x/s; touch /r/f 2>/dev/null || echo ro; dd if=/dev/zero of=/t/f bs=1k count=99 2>/dev/null; wc -c < /t/f"
    assert bothy("run", "--rm", *mounts, "busybox", "sh", "-c", script).ok().out.split() == ["1770", "7", "ran", "ro", "65536"]


def test_images(bothy: Walled, tmp_path: Path) -> None:
    """One of one layer, one of two (in which a file of the first is gone), whole and in part."""
    folder = tmp_path / "layer"
    folder.mkdir()
    (folder / "gone").write_text("gone")
    (folder / "sub").mkdir()
    (folder / "sub" / "file").write_text("first\n")
    archive = tmp_path / "layer.tar"
    subprocess.run(["tar", "cf", archive, "-C", folder, "."], check=True)
    bothy("import", str(archive), "m-one").ok()
    try:
        bothy("create", "--name", "m-change", "m-one", "nothing").ok()
        (tmp_path / "second").write_text("second\n")
        bothy("cp", str(tmp_path / "second"), "m-change:/sub/second").ok()
        bothy("commit", "m-change", "m-two").ok()
        bothy("rm", "m-change").ok()
        mounts = ("--mount", "type=image,source=m-one,target=/one", "--mount", "type=image,source=m-two,target=/two")
        part = (
            "--mount",
            "type=image,source=m-two,target=/part,image-subpath=sub",
            "--mount",
            "type=image,source=m-two,target=/f,image-subpath=sub/file",
        )
        script = "cd /; find one two part f -type f | sort; cat two/sub/second part/file f; stat -c %u two/sub/file; touch /two/new /part/new 2>&1 | grep -c Read-only"
        out = bothy("run", "--rm", *mounts, *part, "busybox", "sh", "-c", script).ok().out.split()
        assert out == [
            "f", "one/gone", "one/sub/file", "part/file", "part/second", "two/gone", "two/sub/file", "two/sub/second",
            "second", "first", "first", "0", "2",
        ]  # fmt: skip
        workload = bothy("create", *mounts, "busybox").ok().line
        assert "is using its referenced image" in bothy("rmi", "m-two").err
        found = bothy.engine.inspect(workload)["Mounts"]
        assert [(m["Type"], m["Name"], m["Destination"], m["RW"]) for m in found] == [
            ("image", "m-one", "/one", False), ("image", "m-two", "/two", False),
        ]  # fmt: skip
        bothy("rm", workload).ok()
        done = bothy("run", "--rm", "--mount", "type=image,source=m-nope,target=/x", "busybox", "true")
        assert done.code == 125
        assert "m-nope" in done.err
        done = bothy("run", "--rm", "--mount", "type=image,source=m-one,target=/x,image-subpath=no", "busybox", "true")
        assert done.code != 0
    finally:
        bothy("rmi", "-f", "m-two", "m-one")


# -- what is told


def test_inspect_shows_mounts_as_docker_does(bothy: Walled, tmp_path: Path) -> None:
    asked: dict[str, Any] = {
        "Image": "busybox",
        "Volumes": {"/anonymous": {}},
        "HostConfig": {
            "Binds": [f"{tmp_path}:/bind:ro", "m-named:/named", f"{tmp_path}:/z:z"],
            "Tmpfs": {"/hidden": "size=1m"},
            "Mounts": [
                {
                    "Type": "bind",
                    "Source": str(tmp_path),
                    "Target": "/mount",
                    "ReadOnly": True,
                    "BindOptions": {"NonRecursive": True},
                },
                {"Type": "volume", "Source": "m-other", "Target": "/other", "VolumeOptions": {"Labels": {"a": "b"}}},
                {"Type": "tmpfs", "Target": "/tmpfs", "TmpfsOptions": {"SizeBytes": 65536}},
            ],
        },
    }
    if bothy.wall == "vm":
        asked["HostConfig"]["Runtime"] = "vm"
    with Client(str(bothy.engine.run_folder / "bothy.sock"), run="") as client:
        made = client.request("POST", "/containers/create", None, asked).json()
        found = client.request("GET", f"/containers/{made['Id']}/json").json()
        listed = client.request("GET", "/containers/json", {"all": True, "filters": json.dumps({"id": [made["Id"]]})}).json()[0]
    volumes = bothy.engine.root / "volumes"
    mounts = {m["Destination"]: m for m in found["Mounts"]}
    name = mounts["/anonymous"]["Name"]
    assert len(name) == 64
    assert mounts == {
        "/anonymous": {
            "Type": "volume", "Name": name, "Source": str(volumes / name / "_data"), "Destination": "/anonymous", "Driver": "local",
            "Mode": "", "RW": True, "Propagation": "",
        },
        "/bind": {"Type": "bind", "Source": str(tmp_path), "Destination": "/bind", "Mode": "ro", "RW": False, "Propagation": "rprivate"},
        "/z": {"Type": "bind", "Source": str(tmp_path), "Destination": "/z", "Mode": "z", "RW": True, "Propagation": "rprivate"},
        "/named": {
            "Type": "volume", "Name": "m-named", "Source": str(volumes / "m-named" / "_data"), "Destination": "/named",
            "Driver": "local", "Mode": "z", "RW": True, "Propagation": "",
        },
        "/mount": {"Type": "bind", "Source": str(tmp_path), "Destination": "/mount", "Mode": "", "RW": False, "Propagation": "rprivate"},
        "/other": {
            "Type": "volume", "Name": "m-other", "Source": str(volumes / "m-other" / "_data"), "Destination": "/other",
            "Driver": "local", "Mode": "z", "RW": True, "Propagation": "",
        },
        "/tmpfs": {"Type": "tmpfs", "Source": "", "Destination": "/tmpfs", "Mode": "", "RW": True, "Propagation": ""},
    }  # fmt: skip
    assert found["HostConfig"]["Mounts"] == asked["HostConfig"]["Mounts"]
    assert found["HostConfig"]["Binds"] == asked["HostConfig"]["Binds"]
    assert {m["Destination"] for m in listed["Mounts"]} == set(mounts)
    bothy("rm", "-v", made["Id"]).ok()
    assert set(bothy("volume", "ls", "-q").ok().out.split()) == {"m-named", "m-other"}
    bothy("volume", "rm", "m-named", "m-other").ok()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("-v", "/a:/x", "--mount", "type=bind,source=/etc,target=/x"), "Duplicate mount point: /x"),
        (("-v", "/a:/x", "--tmpfs", "/x"), "Duplicate mount point: /x"),
        (("--mount", "type=bind,source=etc,target=/x"), "invalid mount path: 'etc' mount path must be absolute"),
        (("--mount", "type=bind,source=/etc,target=x"), "invalid mount path: 'x' mount path must be absolute"),
        (("--mount", "type=volume,target=/x,readonly"), "must not set ReadOnly mode when using anonymous volumes"),
        (("--mount", "type=volume,source=vol,target=/x,volume-subpath=../y"), "subpath must be a relative path within the volume"),
        (("--mount", "type=npipe,source=x,target=/x"), 'invalid mount config for type "npipe": mount type unknown'),
        (("--mount", "type=volume,source=vol,target=/x,volume-driver=rexray"), 'plugin "rexray" not found'),
        (("--volume-driver", "rexray", "-v", "vol:/x"), 'plugin "rexray" not found'),
        (("-v", "/a:/x:what"), "invalid mode: what"),
    ],
)
def test_what_is_refused_in_dockers_words(settled: TestEngine, flags: tuple[str, ...], words: str) -> None:
    done = settled("create", *flags, "busybox")
    assert done.code != 0
    assert words in done.err
    assert settled("volume", "ls", "-q").ok().out == ""


def test_copies_meet_the_mounts_of_what_does_not_run(bothy: Walled) -> None:
    """cp and the like see volumes with a quota, parts of volumes and images also while nothing runs; then all is unmounted."""
    bothy("volume", "create", "--opt", "size=16m", "m-quota").ok()
    bothy("run", "--rm", "-v", "m-quota:/data", "busybox", "sh", "-c", "mkdir /data/sub; echo deep > /data/sub/file").ok()
    mounts = ("--mount", "source=m-quota,target=/data,volume-subpath=sub", "--mount", "type=image,source=busybox,target=/image")
    bothy("create", "--name", "m-down", *mounts, "busybox", "cat", "/data/new").ok()
    assert "deep" in bothy("cp", "m-down:/data/file", "-").ok().out
    assert "busybox" in bothy("cp", "m-down:/image/bin/busybox", "-").ok().out[:200]
    point = str(bothy.engine.root / "volumes" / "m-quota" / "_data")
    await_(lambda: point not in Path("/proc/self/mountinfo").read_text(), "the volume to be unmounted")
    bothy("rm", "m-down").ok()
    bothy("volume", "rm", "m-quota").ok()
