"""Plans as data: what a record comes to, without root."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bothy.engine import spec
from bothy.engine.model import Config, ExecRequest, HostConfig, MountRecord, NetworkingConfig, Ulimit, Wall, Workload
from bothy.errors import Invalid
from bothy.jsonable import PLAIN
from bothy.keeper.model import KeeperPlan, LogPlan
from bothy.linux.links import Attachment, Interface
from bothy.machines.model import Share
from bothy.oci.runtime import Mount
from bothy.paths import Paths

TMPFS = MountRecord("tmpfs", "", "/t", options=["noexec", "size=1m"], listed=False)
PATHS = Paths(Path("/root-folder"), Path("/run-folder"))
ID = "ab" * 32


def record(config: Config | None = None, host: HostConfig | None = None, **changes: object) -> Workload:
    base = Workload(
        ID, "name", Wall.CONTAINER, "sha256:x", "image", config or Config(cmd=["prog", "arg"]), host or HostConfig(network_mode="bridge"),
        NetworkingConfig(), "2026-01-01T00:00:00.000000000Z", "prog", ["arg"], id_base=1_048_576,
    )  # fmt: skip
    return replace(base, **changes)  # type: ignore[arg-type]


def test_defaults_are_dockers() -> None:
    found = spec.container_plan(record(), PATHS, spec.Place(), 64 << 20)
    process = found.spec.process
    assert process.args == ["prog", "arg"]
    assert process.cwd == "/"
    assert process.env[:2] == ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", f"HOSTNAME={ID[:12]}"]
    assert process.capabilities is not None
    assert len(process.capabilities.bounding) == 14
    assert process.no_new_privileges is False
    assert found.spec.hostname == ID[:12]
    assert found.cgroup.endswith(f"/{ID}")
    assert "/proc/kcore" in found.spec.linux.masked_paths
    assert found.id_base == 1_048_576
    assert {"user", "pid", "network", "mount"} <= {n.type for n in found.spec.linux.namespaces}
    assert found.rootfs.upper == f"/root-folder/containers/{ID}/upper"


def test_flags_reach_the_spec() -> None:
    config = Config(cmd=["x"], tty=True, user="1:2", working_dir="/w", hostname="box", env=["A=1"])
    host = HostConfig(
        network_mode="none", readonly_rootfs=True, cap_drop=["ALL"], cap_add=["NET_RAW"], security_opt=["no-new-privileges"], shm_size=1 << 20,
        ulimits=[Ulimit("nofile", 10, 20)], sysctls={"net.core.somaxconn": "9"}, init=True, tmpfs={"/t": "size=1m"}, binds=["/src:/dst:ro"],
    )  # fmt: skip
    found = spec.container_plan(
        record(config, host, mounts=[MountRecord("bind", "/src", "/dst", read_write=False), TMPFS]), PATHS, spec.Place(), 64 << 20
    )
    process, linux = found.spec.process, found.spec.linux
    assert process.terminal
    assert "TERM=xterm" in process.env
    assert "A=1" in process.env
    assert process.user.username == "1:2"
    assert process.cwd == "/w"
    assert process.capabilities is not None
    assert process.capabilities.bounding == ["CAP_NET_RAW"]
    assert process.no_new_privileges
    assert [(r.type, r.soft, r.hard) for r in process.rlimits] == [("RLIMIT_NOFILE", 10, 20)]
    assert found.spec.root.readonly
    assert found.init
    assert linux.sysctl["net.core.somaxconn"] == "9"
    by_target = {m.destination: m for m in found.spec.mounts}
    assert "size=1048576" in by_target["/dev/shm"].options
    assert by_target["/t"].type == "tmpfs"
    assert by_target["/dst"].options == ["rbind", "rro", "rprivate"]
    assert by_target["/t"].options == ["noexec", "size=1m"]
    assert by_target["/etc/hosts"].options[1] == "ro"
    assert list(by_target).index("/dst") > list(by_target).index("/proc")


def test_an_image_is_mounted_by_its_layers() -> None:
    mounts = [MountRecord("image", "sha256:1", "/tools", False, "tools", options=["rbind", "rro", "", "X-mount.subdir=bin"])]
    place = spec.Place(images={"sha256:1": [Path("/top"), Path("/bottom")]})
    found = spec.container_plan(record(host=HostConfig(network_mode="none"), mounts=mounts), PATHS, place, 64 << 20)
    assert found.spec.mounts[-1] == Mount(
        "/tools", "overlay", "overlay", ["ro", "X-mount.subdir=bin", "lowerdir+=/top", "lowerdir+=/bottom"]
    )


def test_a_mount_takes_the_place_of_a_default_one() -> None:
    host = HostConfig(network_mode="bridge", binds=["/h:/etc/hosts", "/d:/dev/shm"])
    mounts = [MountRecord("bind", "/d", "/dev/shm"), MountRecord("bind", "/h", "/etc/hosts")]
    found = spec.container_plan(record(host=host, mounts=mounts), PATHS, spec.Place(), 64 << 20)
    assert [m.source for m in found.spec.mounts if m.destination in ("/etc/hosts", "/dev/shm")] == ["/d", "/h"]


def test_privileged_has_no_user_namespace_and_no_masks() -> None:
    found = spec.container_plan(
        record(host=HostConfig(network_mode="host", privileged=True), id_base=0), PATHS, spec.Place(), 64 << 20
    )
    kinds = {n.type for n in found.spec.linux.namespaces}
    assert "user" not in kinds
    assert "network" not in kinds
    assert found.spec.linux.masked_paths == []
    assert found.spec.linux.readonly_paths == []
    assert found.spec.linux.resources.devices[0].allow
    assert not spec.has_user_namespace(HostConfig(userns_mode="host"))
    assert spec.has_user_namespace(HostConfig())


def test_an_exec_has_the_surroundings_of_the_program() -> None:
    workload = record(Config(cmd=["x"], env=["A=1"], working_dir="/w", user="u"), HostConfig(network_mode="none", cap_drop=["ALL"]))
    found = spec.exec_process(workload, ExecRequest(cmd=["sh"], env=["B=2"], tty=True), [24, 80])
    assert (found.args, found.cwd, found.user.username, found.terminal) == (["sh"], "/w", "u", True)
    assert {"A=1", "B=2", "TERM=xterm"} <= set(found.env)
    assert found.capabilities is not None
    assert found.capabilities.bounding == []
    assert found.console_size is not None
    assert (found.console_size.height, found.console_size.width) == (24, 80)
    whole = spec.exec_process(workload, ExecRequest(cmd=["sh"], privileged=True, user="0", working_dir="/x"))
    assert whole.capabilities is not None
    assert len(whole.capabilities.bounding) > 35
    assert (whole.user.username, whole.cwd) == ("0", "/x")
    with pytest.raises(Invalid):
        spec.exec_process(workload, ExecRequest(cmd=[]))


def test_a_machine_gets_shares_files_and_whole_processors() -> None:
    host = HostConfig(network_mode="bridge", nano_cpus=15 * 10**8, memory=(100 << 20) + 1, binds=["/src:/dst:ro", "vv:/vol"])
    mounts = [
        MountRecord("bind", "/src", "/dst", options=["rbind", "rro", "rslave"]),
        MountRecord("volume", "/volumes/v/_data", "/vol", options=["rbind", "rw", "rprivate", "X-mount.subdir=a/b"]),
        MountRecord("bind", "/flat", "/flat", options=["bind", "ro", "rprivate"]),
        MountRecord("image", "sha256:1", "/image", False, "tools", options=["rbind", "rro", "", "X-mount.subdir=bin"]),
    ]
    workload = record(host=host, mounts=mounts, wall=Wall.VM, id_base=0)
    card = Attachment(Interface("eth0", "02:00:00:00:00:02", ["172.30.0.2/16"]), "tap0", "bothy0")
    place = spec.Place(attachments=[card], images={"sha256:1": [Path("/top"), Path("/bottom")]})
    cpus, memory = spec.vcpus(host, 1), spec.machine_memory(host, 1)
    found = spec.machine_plan(
        workload, PATHS, place, 64 << 20, {"hosts": "h", "hostname": "n", "resolv.conf": "r"},
        template=Path("/t"), disk=Path("/d"), cpus=cpus, memory=memory,
    )  # fmt: skip
    assert (found.vcpus, found.memory) == (2, 101 << 20)
    assert found.shares == [
        Share("/src", "/dst", readonly=True, propagation="rslave"),
        Share("/volumes/v/_data", "/vol", subpath="a/b"),
        Share("/flat", "/flat", readonly=True, recursive=False, deep=False),
        Share("", "/image", readonly=True, subpath="bin", layers=["/top", "/bottom"]),
    ]
    assert found.files == {"/etc/hosts": "h", "/etc/hostname": "n", "/etc/resolv.conf": "r"}
    assert all(m.type not in ("bind", "overlay", "image") for m in found.spec.mounts)
    assert found.attachments == [card]
    assert found.scratch.path.startswith(f"/root-folder/containers/{ID}/")


def test_plans_survive_the_way_to_the_keeper() -> None:
    found = KeeperPlan(ID, LogPlan("/log"), container=spec.container_plan(record(), PATHS, spec.Place(), 64 << 20))
    assert PLAIN.loads(KeeperPlan, PLAIN.dumps(found)) == found
