"""What a container gets by default, and what flags make of it."""

from __future__ import annotations

import pytest

from bothy.containers import defaults
from bothy.errors import Invalid
from bothy.linux import capabilities as kernel

ALL = kernel.mask(kernel.NAMES)


def bounding(*args: object, **more: object) -> list[str]:
    sets, _ = defaults.capabilities(*args, **{"bounding": ALL, **more})  # type: ignore[arg-type]
    return sets.bounding


def test_docker_gives_fourteen() -> None:
    assert len(defaults.CAPABILITIES) == 14
    assert set(bounding()) == set(defaults.CAPABILITIES)


def test_the_sets_are_alike_and_nothing_is_inherited() -> None:
    sets, warnings = defaults.capabilities(bounding=ALL)
    assert sets.bounding == sets.effective == sets.permitted
    assert (sets.inheritable, sets.ambient, warnings) == ([], [], [])


def test_add_and_drop_with_and_without_the_prefix() -> None:
    names = bounding(["net_admin", "CAP_SYS_PTRACE"], ["chown"])
    assert {"CAP_NET_ADMIN", "CAP_SYS_PTRACE"} <= set(names)
    assert "CAP_CHOWN" not in names


def test_all() -> None:
    assert bounding(["ALL"]) == list(kernel.NAMES)
    assert bounding([], ["ALL"]) == []
    assert bounding(["NET_ADMIN"], ["ALL"]) == ["CAP_NET_ADMIN"]
    assert "CAP_CHOWN" not in bounding(["ALL"], ["CHOWN"])
    assert bounding(privileged=True) == list(kernel.NAMES)


def test_only_what_is_ours_is_given_and_what_was_asked_for_by_name_is_told() -> None:
    ours = ALL & ~(1 << kernel.NUMBERS["CAP_SYS_RESOURCE"])
    sets, warnings = defaults.capabilities(["SYS_RESOURCE"], bounding=ours)
    assert "CAP_SYS_RESOURCE" not in sets.bounding
    assert len(warnings) == 1
    assert "CAP_SYS_RESOURCE" in warnings[0]
    sets, warnings = defaults.capabilities(["ALL"], bounding=ours)
    assert len(sets.bounding) == len(kernel.NAMES) - 1
    assert warnings == []


def test_a_capability_that_is_none() -> None:
    with pytest.raises(Invalid, match="FLY"):
        defaults.capabilities(["FLY"])


def test_privileged_mounts_are_writable() -> None:
    by_place = {m.destination: m for m in defaults.mounts()}
    assert "ro" in by_place["/sys"].options
    assert "ro" in by_place["/sys/fs/cgroup"].options
    by_place = {m.destination: m for m in defaults.mounts(privileged=True)}
    assert "ro" not in by_place["/sys"].options


def test_shm_size() -> None:
    by_place = {m.destination: m for m in defaults.mounts(shm_size=1 << 20)}
    assert "size=1048576" in by_place["/dev/shm"].options


def test_the_host_network_is_no_namespace() -> None:
    assert "network" not in [n.type for n in defaults.namespaces(network="host")]
    assert [n.path for n in defaults.namespaces(network="/run/netns/x") if n.type == "network"] == ["/run/netns/x"]


def test_device_rules_begin_with_no() -> None:
    first, *rest = defaults.device_rules()
    assert (first.allow, first.type) == (False, "a")
    assert all(rule.allow for rule in rest)
    assert defaults.device_rules(privileged=True)[0].allow


def test_host_devices_are_devices() -> None:
    found = {device.path: device for device in defaults.host_devices()}
    assert (found["/dev/null"].type, found["/dev/null"].major, found["/dev/null"].minor) == ("c", 1, 3)
    assert not any(path.startswith("/dev/pts/") for path in found)


def test_ports_and_ping_without_privilege_in_a_network_of_ones_own() -> None:
    assert defaults.sysctls()["net.ipv4.ping_group_range"] == "0 2147483647"
    assert defaults.sysctls(id_base=1000)["net.ipv4.ping_group_range"] == "1000 66535"
    assert defaults.sysctls(network="host") == {}
