"""From a plan to the operations that make the root: pure."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bothy.containers import defaults, rootfs
from bothy.containers.model import ContainerPlan, Rootfs
from bothy.containers.operations import (
    Bind,
    CgroupView,
    Console,
    Filesystem,
    Layers,
    Link,
    Mask,
    Node,
    Overlay,
    Readonly,
    ReadonlyRoot,
    Sysctl,
)
from bothy.errors import StageError
from bothy.linux import syscalls as sc
from bothy.oci.runtime import Linux, Mount, Process, Root, Spec


def make(
    *mounts: Mount, id_base: int = 0, sysctl: dict[str, str] | None = None, terminal: bool = False, ro: bool = False
) -> ContainerPlan:
    linux = Linux(
        namespaces=defaults.namespaces(),
        devices=defaults.devices(),
        masked_paths=list(defaults.MASKED_PATHS),
        readonly_paths=list(defaults.READONLY_PATHS),
        sysctl=sysctl or {},
    )
    spec = Spec(Process(["true"], terminal=terminal), Root("/", ro), mounts=[*defaults.mounts(), *mounts], linux=linux)
    return ContainerPlan("one", spec, Rootfs("/s", ["/s/top", "/s/bottom"], "/s/u", "/s/w"), id_base=id_base)


def test_the_root_comes_first_and_the_read_only_root_last() -> None:
    operations = rootfs.plan(make(ro=True, terminal=True))
    assert isinstance(operations[0], Overlay)
    assert operations[0].lowers == ["/s/top", "/s/bottom"]
    assert isinstance(operations[-1], ReadonlyRoot)
    kinds = [type(operation) for operation in operations]
    assert kinds.index(Node) > max(i for i, kind in enumerate(kinds) if kind is Filesystem)
    assert Console in kinds
    assert kinds.index(Readonly) < kinds.index(Mask)


def test_no_terminal_no_console() -> None:
    assert not any(isinstance(operation, Console) for operation in rootfs.plan(make()))


def test_the_overlay_is_idmapped_only_with_ids_of_its_own() -> None:
    assert [o.idmap for o in rootfs.plan(make(id_base=100000)) if isinstance(o, Overlay)] == [True]
    assert [o.idmap for o in rootfs.plan(make()) if isinstance(o, Overlay)] == [False]


def test_ids_in_options_are_the_containers() -> None:
    operations = rootfs.plan(make(Mount("/t", "tmpfs", "tmpfs", ["uid=5", "size=1m"]), id_base=100000))
    by_place = {o.destination: o for o in operations if isinstance(o, Filesystem)}
    assert "gid=100005" in by_place["/dev/pts"].data
    assert by_place["/t"].data == ["gid=100000", "uid=100005", "size=1m"]
    assert by_place["/proc"].data == []


def test_binds() -> None:
    binds = (
        Mount("/a", "bind", "/src", ["rbind", "ro", "rslave"]),
        Mount("/b", "none", "/src", ["bind", "nosuid"]),
    )
    a, b = [o for o in rootfs.plan(make(*binds, id_base=1000)) if isinstance(o, Bind)]
    assert (a.recursive, a.attr_set, a.propagation, a.idmap) == (True, sc.MOUNT_ATTR_RDONLY, sc.MS_SLAVE, True)
    assert (b.recursive, b.attr_set, b.propagation) == (False, sc.MOUNT_ATTR_NOSUID, 0)
    plain = replace(make(*binds, id_base=1000), idmapped_binds=False)
    assert not any(o.idmap for o in rootfs.plan(plain) if isinstance(o, Bind))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["rbind", "ro"], (True, sc.MOUNT_ATTR_RDONLY, False)),
        (["rbind", "rro"], (True, sc.MOUNT_ATTR_RDONLY, True)),
        (["bind", "ro"], (False, sc.MOUNT_ATTR_RDONLY, False)),
        (["rbind", "rw"], (True, 0, False)),
    ],
)
def test_what_is_read_only_below_a_bind(words: list[str], expected: tuple[bool, int, bool]) -> None:
    [bind] = [o for o in rootfs.plan(make(Mount("/a", "bind", "/src", words))) if isinstance(o, Bind)]
    assert (bind.recursive, bind.attr_set, bind.deep) == expected


def test_a_part_of_a_source() -> None:
    [bind] = [o for o in rootfs.plan(make(Mount("/a", "bind", "/src", ["rbind", "X-mount.subdir=b/c"]))) if isinstance(o, Bind)]
    assert (bind.source, bind.subpath) == ("/src", "b/c")


def test_layers_of_an_image() -> None:
    words = ["ro", "X-mount.subdir=bin", "lowerdir+=/s/one", "lowerdir+=/s/two"]
    assert Layers(["/s/one", "/s/two"], "/image", "bin") in rootfs.plan(make(Mount("/image", "overlay", "overlay", words)))


def test_cgroups_are_a_view() -> None:
    [view] = [o for o in rootfs.plan(make()) if isinstance(o, CgroupView)]
    assert view.attr_set & sc.MOUNT_ATTR_RDONLY


def test_dev_links() -> None:
    links = {o.path: o.target for o in rootfs.plan(make()) if isinstance(o, Link)}
    assert links["/dev/stdout"] == "/proc/self/fd/1"
    assert links["/dev/ptmx"] == "pts/ptmx"


@pytest.mark.parametrize(
    "name", ["net.ipv4.ip_forward", "kernel.shmmax", "fs.mqueue.msg_max", "net.ipv4.conf.eth0/1.forwarding", "net/core/somaxconn"]
)
def test_sysctls_of_the_containers_own(name: str) -> None:
    assert Sysctl(name, "1") in rootfs.plan(make(sysctl={name: "1"}))


@pytest.mark.parametrize(
    "name",
    [
        "kernel.panic",
        "vm.swappiness",
        "net.../../kernel/panic",
        "kernel.hostname",
        "net.ipv4..x",
        "net/../kernel/panic",
        "/net/core/x",
        "net.ipv4.//.x",
    ],
)
def test_sysctls_of_the_host_are_refused(name: str) -> None:
    with pytest.raises(StageError, match="not one of the container's own"):
        rootfs.plan(make(sysctl={name: "1"}))


def test_network_sysctls_need_a_network_of_ones_own() -> None:
    plan = make(sysctl={"net.ipv4.ip_forward": "1"})
    linux = replace(plan.spec.linux, namespaces=defaults.namespaces(network="host"))
    with pytest.raises(StageError):
        rootfs.plan(replace(plan, spec=replace(plan.spec, linux=linux)))


def test_relative_destinations_are_refused() -> None:
    with pytest.raises(StageError, match="absolute"):
        rootfs.plan(make(Mount("data", "bind", "/src")))


def test_every_operation_says_what_it_does() -> None:
    bind = Mount("/a", "bind", "/src", ["rbind"])
    image = Mount("/i", "overlay", "overlay", ["lowerdir+=/s/one"])
    for operation in rootfs.plan(make(bind, image, id_base=5, sysctl={"kernel.sem": "1"}, terminal=True, ro=True)):
        assert operation.describe()
