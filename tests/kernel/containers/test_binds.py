"""Bind mounts: sources of the host, destinations in a root that a stranger filled."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from bothy.oci.runtime import Mount


@pytest.fixture
def source(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "file").write_text("hello\n")
    return folder


def bind(source: Path, destination: str, *options: str) -> list[Mount]:
    return [Mount(destination, "bind", str(source), ["rbind", *options])]


def test_a_folder_read_and_written(rig: Any, source: Path) -> None:
    result = rig.run(["sh", "-c", "cat /data/file; stat -c %u /data/file; echo new > /data/new"], mounts=bind(source, "/data"))
    assert result.out.split() == ["hello", "0"]
    assert (source / "new").read_text() == "new\n"
    assert (source / "new").stat().st_uid == 0


def test_a_users_files_on_both_sides(rig: Any, source: Path) -> None:
    os.chown(source, 1000, 1000)
    assert rig.run(["sh", "-c", "echo mine > /data/mine"], user="ann", mounts=bind(source, "/data")).code == 0
    assert (source / "mine").stat().st_uid == 1000


def test_without_id_mapping_they_are_nobodys(rig: Any, source: Path) -> None:
    result = rig.run(["stat", "-c", "%u", "/data/file"], mounts=bind(source, "/data"), idmapped_binds=False)
    assert result.out.strip() == ("65534" if rig.userns else "0")


def test_read_only(rig: Any, source: Path) -> None:
    result = rig.run(["sh", "-c", "cat /data/file; touch /data/x"], mounts=bind(source, "/data", "ro"))
    assert (result.out, result.code) == ("hello\n", 1)
    assert "Read-only" in result.err


def test_one_file_and_missing_folders_on_the_way(rig: Any, source: Path) -> None:
    result = rig.run(["cat", "/a/b/c"], mounts=bind(source / "file", "/a/b/c", "ro"))
    assert result.out == "hello\n"


def test_a_file_over_a_file_of_the_image(rig: Any, source: Path) -> None:
    result = rig.run(["cat", "/etc/group"], mounts=bind(source / "file", "/etc/group"))
    assert result.out == "hello\n"


def test_a_folder_over_a_file_is_refused(rig: Any, source: Path) -> None:
    failure = rig.run(["true"], mounts=bind(source, "/etc/group")).failure
    assert (failure["stage"], failure["path"]) == ("mount", "/etc/group")


def test_a_socket(rig: Any, source: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(source / "sock"))
        assert rig.run(["sh", "-c", "test -S /run/sock && echo yes"], mounts=bind(source / "sock", "/run/sock")).out == "yes\n"


def test_a_missing_source_is_named(rig: Any) -> None:
    failure = rig.run(["true"], mounts=bind(Path("/no/such"), "/data")).failure
    assert (failure["message"], failure["path"]) == ("bind source path does not exist", "/no/such")


def test_mounts_below_the_source_come_along_and_are_read_only_too(rig: Any, source: Path) -> None:
    (source / "below").mkdir()
    nested = [*bind(source, "/data"), Mount("/data/below", "tmpfs", "tmpfs", ["size=64k"])]
    assert rig.run(["touch", "/data/below/x"], mounts=nested).code == 0
    assert not (source / "below/x").exists()


def test_sources_below_the_store(rig: Any) -> None:
    """The engine's own files lie where the layers lie, which is idmapped already while the overlay is made."""
    plan = rig.plan(["sh", "-c", "cat /etc/hosts; echo more >> /etc/hosts"])
    hosts = Path(plan.rootfs.upper).parent / "hosts"
    hosts.write_text("127.0.0.1 localhost\n")
    plan = rig.plan(["sh", "-c", "cat /etc/hosts; echo more >> /etc/hosts"], mounts=bind(hosts, "/etc/hosts"))
    assert rig.run_plan(plan).out == "127.0.0.1 localhost\n"
    assert hosts.read_text() == "127.0.0.1 localhost\nmore\n"


@pytest.mark.parametrize("climb", ["/../../../../..", "../../../../../..", "/proc/1/root", "/proc/self/cwd/../.."])
def test_links_in_the_image_can_not_lead_a_destination_out(rig: Any, source: Path, tmp_path: Path, climb: str) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    plan = rig.plan(["sh", "-c", "cat /out/target/file"], mounts=bind(source, f"/link{victim}/target"))
    Path(plan.rootfs.upper, "link").symlink_to(climb)
    result = rig.run_plan(plan)
    assert list(victim.iterdir()) == []
    assert result.failure or result.code != -1


def test_a_link_at_the_destination_is_followed_inside(rig: Any, source: Path) -> None:
    plan = rig.plan(["sh", "-c", "cat /real/file"], mounts=bind(source, "/link"))
    Path(plan.rootfs.upper, "link").symlink_to("/real")
    assert rig.run_plan(plan).out == "hello\n"


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
def test_an_image_whose_own_folders_are_links_to_the_host(rig: Any, name: str, layer: Path) -> None:
    evil = layer / "layers" / f"evil-{name}-{rig.userns}"
    evil.mkdir()
    (evil / name).symlink_to("/../../../../etc")
    result = rig.run(["ls", "/etc"], lowers=[evil, layer / "layers/busybox"])
    assert not Path("/etc/pts").exists()
    assert not Path("/etc/null").exists()
    assert result.failure or result.code == 0


def test_links_at_masked_paths_are_refused(rig: Any, layer: Path) -> None:
    plan = rig.plan(["true"], masked=("/trap",))
    Path(plan.rootfs.upper, "trap").symlink_to("/etc/passwd")
    assert rig.run_plan(plan).failure["stage"] == "mount"


def test_a_working_folder_by_way_of_a_descriptor_stays_inside(rig: Any) -> None:
    for number in range(3, 12):
        result = rig.run(["sh", "-c", "ls ../../../../../etc/hostname 2>/dev/null; pwd"], cwd=f"/proc/self/fd/{number}")
        assert result.failure.get("stage") == "cwd" or "hostname" not in result.out


def test_passwd_that_is_a_trap(rig: Any) -> None:
    for kind in ("fifo", "link"):
        plan = rig.plan(["grep", "-c", "Uid:.0", "/proc/self/status"])
        etc = Path(plan.rootfs.upper, "etc")
        etc.mkdir()
        if kind == "fifo":
            os.mkfifo(etc / "passwd")
        else:
            (etc / "passwd").symlink_to("/proc/self/environ")
        assert rig.run_plan(plan).out.strip() == "1"
