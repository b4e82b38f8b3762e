"""What is asked for: ports, mounts, limits, security words, signals, merges; each with what is refused."""

from __future__ import annotations

import signal

import pytest

from bothy.engine import binds, limits, merge, mountspecs, ports, security
from bothy.engine.limits import Host
from bothy.engine.model import Config, DeviceMapping, HostConfig, MountPoint, PortBinding, Ulimit
from bothy.errors import BothyError, Invalid, NotFound, Unsupported
from bothy.oci.image import ImageConfig

HOST = Host(cpus=2, memory=8 << 30)
MIB = 1 << 20


# -- ports


def test_ports_are_read() -> None:
    assert ports.parse("80") == ([80], "tcp")
    assert ports.parse("8000-8002/UDP") == ([8000, 8001, 8002], "udp")
    assert ports.exposed(["53/udp", "80-81"]) == [(53, "udp"), (80, "tcp"), (81, "tcp")]


@pytest.mark.parametrize("text", ["", "0", "x", "80/icmp", "90-80", "70000", "-1", "80/", "1-2-3"])
def test_bad_ports_are_refused(text: str) -> None:
    with pytest.raises(Invalid):
        ports.parse(text)


def test_publications() -> None:
    bindings = {"80/tcp": [PortBinding("127.0.0.1", "8080"), PortBinding("", "9000-9005")], "53/udp": []}
    found = ports.publications(["80/tcp", "443"], bindings, publish_all=True)
    assert [(p.container_port, p.protocol, p.host_ip, p.host_port) for p in found] == [
        (80, "tcp", "127.0.0.1", "8080"), (80, "tcp", "", "9000-9005"), (53, "udp", "", ""), (443, "tcp", "", ""),
    ]  # fmt: skip


@pytest.mark.parametrize("binding", [PortBinding("nowhere", "80"), PortBinding("", "x"), PortBinding("", "99999")])
def test_bad_bindings_are_refused(binding: PortBinding) -> None:
    with pytest.raises(Invalid):
        ports.publications([], {"80/tcp": [binding]}, publish_all=False)


# -- mounts


def test_binds_are_read() -> None:
    assert binds.bind("/a/../b:/there/:ro") == binds.Wanted("bind", "/there", "/b", read_only=True, make_source=True, mode="ro")
    assert binds.bind("name:/there").kind == "volume"
    assert binds.bind("name:/there:nocopy").copy_up is False
    assert binds.bind("/a:/b:rslave").propagation == "rslave"


@pytest.mark.parametrize(
    "text",
    [
        "/a:b",
        "a",
        ":/b",
        "/a:",
        "/a:/",
        "/a:/b:what",
        "/a:/b:ro:x",
        "na me:/b",
        "name:/b:rshared",
        "rel/x:/b",
        "/a:ro",
        "/a:/b:ro,rw",
    ],
)
def test_bad_binds_are_refused(text: str) -> None:
    with pytest.raises(Invalid):
        binds.bind(text)


def test_mounts_are_sorted_and_not_doubled() -> None:
    host = HostConfig(
        binds=["/x:/a/b/c", "/y:/a"],
        mounts=[
            MountPoint("volume", "vol", "/a/b"),
            MountPoint("tmpfs", "", "/t", tmpfs_options={"SizeBytes": 4096, "Mode": 0o700}),
        ],
    )
    found = binds.wanted(Config(volumes={"/a": {}, "/data": {}}), host)
    assert [(m.kind, m.target) for m in found] == [
        ("bind", "/a"), ("volume", "/data"), ("tmpfs", "/t"), ("volume", "/a/b"), ("bind", "/a/b/c"),
    ]  # fmt: skip
    assert found[2].options[-2:] == ("size=4096", "mode=700")
    with pytest.raises(Invalid, match="Duplicate mount point: /a"):
        binds.wanted(Config(), HostConfig(binds=["/x:/a"], tmpfs={"/a": ""}))


@pytest.mark.parametrize(
    "mount",
    [
        MountPoint("bind", "rel", "/a"), MountPoint("bind", "/x", "a"), MountPoint("tmpfs", "/x", "/a"), MountPoint("npipe", "x", "/a"),
        MountPoint("volume", "v", ""), MountPoint("bind", "/x", "/a", bind_options={"Propagation": "far"}),
    ],
)  # fmt: skip
def test_bad_mounts_are_refused(mount: MountPoint) -> None:
    with pytest.raises(Invalid):
        binds.wanted(Config(), HostConfig(mounts=[mount]))


def test_tmpfs_keeps_dockers_defaults_unless_told_otherwise() -> None:
    assert mountspecs.tmpfs("/t", ["size=1m"]).options == ("noexec", "nosuid", "nodev", "size=1m")
    assert mountspecs.tmpfs("/t", ["exec"]).options == ("nosuid", "nodev", "exec")
    with pytest.raises(Invalid, match=r'invalid tmpfs option \["lowerdir=/"\]'):
        mountspecs.tmpfs("/t", ["lowerdir=/"])


# -- limits


@pytest.mark.parametrize(
    "asked",
    [
        HostConfig(memory=-1), HostConfig(memory=5 * MIB), HostConfig(memory=8 * MIB, memory_swap=7 * MIB), HostConfig(memory_swap=9 * MIB),
        HostConfig(memory=8 * MIB, memory_reservation=9 * MIB), HostConfig(memory_swap=-2), HostConfig(nano_cpus=-1),
        HostConfig(nano_cpus=3 * 10**9), HostConfig(nano_cpus=5), HostConfig(nano_cpus=10**9, cpu_quota=5000), HostConfig(cpu_quota=5),
        HostConfig(cpu_period=5), HostConfig(cpu_shares=-1), HostConfig(cpuset_cpus="0-9"), HostConfig(cpuset_cpus="x"),
        HostConfig(cpuset_cpus="1-0"), HostConfig(oom_score_adj=1001), HostConfig(shm_size=-1), HostConfig(pids_limit=-2),
        HostConfig(ulimits=[Ulimit("nofile", 2, 1)]), HostConfig(ulimits=[Ulimit("what", 1, 1)]), HostConfig(memory_swappiness=101),
    ],
)  # fmt: skip
def test_impossible_limits_are_refused(asked: HostConfig) -> None:
    with pytest.raises(Invalid):
        limits.check(asked, HOST, machine=False)


def test_a_machine_may_have_more_processors_than_the_host() -> None:
    assert limits.check(HostConfig(nano_cpus=4 * 10**9), HOST, machine=True) == []


def test_a_machine_may_have_more_memory_than_the_host_which_is_told() -> None:
    host = Host(cpus=2, memory=8 << 30, swap=2 << 30)
    assert limits.check(HostConfig(memory=10 << 30), host, machine=True) == []
    (told,) = limits.check(HostConfig(memory=11 << 30), host, machine=True)
    assert "10240 MiB with swap, not 11264 MiB" in told
    assert limits.check(HostConfig(memory=11 << 30), host, machine=False) == []


@pytest.mark.parametrize("asked", [HostConfig(memory=1001 << 30), HostConfig(nano_cpus=256 * 10**9)])
def test_what_no_machine_can_have(asked: HostConfig) -> None:
    with pytest.raises(Invalid, match="a machine can not have more"):
        limits.check(asked, HOST, machine=True)


def test_a_limit_that_can_not_be_raised_is_told() -> None:
    host = Host(cpus=2, memory=8 << 30, hard_limits={"nofile": 100})
    asked = HostConfig(ulimits=[Ulimit("nofile", 50, 200), Ulimit("core", -1, -1)])
    assert limits.check(asked, host, machine=False) == ["ulimit nofile is clamped to 100, bothy may not raise it on this host"]
    assert limits.check(asked, host, machine=True) == []
    assert limits.check(HostConfig(ulimits=[Ulimit("nofile", -1, -1)]), host, machine=False) != []
    assert limits.check(HostConfig(ulimits=[Ulimit("nofile", 50, 100)]), host, machine=False) == []


def test_limits_become_resources() -> None:
    found = limits.resources(HostConfig(memory=64 * MIB, nano_cpus=15 * 10**8, pids_limit=10, cpuset_cpus="0"), [])
    assert found.memory is not None
    assert (found.memory.limit, found.memory.swap) == (64 * MIB, 128 * MIB)
    assert found.cpu is not None
    assert (found.cpu.quota, found.cpu.period, found.cpu.cpus) == (150_000, 100_000, "0")
    assert found.pids is not None
    assert found.pids.limit == 10
    nothing = limits.resources(HostConfig(pids_limit=-1), [])
    assert (nothing.memory, nothing.cpu, nothing.pids) == (None, None, None)


def test_unlimited_swap_stays_unlimited() -> None:
    found = limits.resources(HostConfig(memory=64 * MIB, memory_swap=-1), [])
    assert found.memory is not None
    assert found.memory.swap == -1


# -- security


def test_security_options() -> None:
    found = security.options(["no-new-privileges", "seccomp=unconfined", "systempaths=unconfined"], privileged=False)
    assert (found.no_new_privileges, found.seccomp, found.open_system_paths) == (True, "unconfined", True)
    assert security.options([], privileged=True).seccomp == "unconfined"
    assert security.options(["seccomp:unconfined"], privileged=False).seccomp == "unconfined"
    assert security.options(["apparmor=unconfined"], privileged=False).warnings == ()


@pytest.mark.parametrize("word", ["what", "seccomp=", "seccomp=/a/path", "no-new-privileges=maybe"])
def test_bad_security_options_are_refused(word: str) -> None:
    with pytest.raises(Invalid):
        security.options([word], privileged=False)


@pytest.mark.parametrize(
    ("asked", "kind", "machine"),
    [
        (HostConfig(cap_add=["CAP_NOPE"]), Invalid, False),
        (HostConfig(group_add=["4294967296"]), Invalid, False),
        (HostConfig(group_add=[""]), Invalid, False),
        (HostConfig(sysctls={"kernel.panic": "1"}), Invalid, False),
        (HostConfig(sysctls={"net.core.somaxconn": "1"}, network_mode="host"), Invalid, False),
        (HostConfig(pid_mode="container:x"), Unsupported, True),
        (HostConfig(ipc_mode="none"), Unsupported, True),
        (HostConfig(pid_mode="container:"), Invalid, False),
        (HostConfig(sysctls={"kernel.shmmax": "1"}, ipc_mode="host"), Invalid, False),
        (HostConfig(sysctls={"kernel.hostname": "x"}), Invalid, False),
        (HostConfig(sysctls={"vm/swappiness": "1"}), Invalid, False),
        (HostConfig(ipc_mode="nonsense"), Invalid, False),
        (HostConfig(network_mode="host"), Unsupported, True),
        (HostConfig(devices=[DeviceMapping("/dev/null", "/dev/null")]), Unsupported, True),
    ],
)
def test_what_can_not_be_had_is_refused(asked: HostConfig, kind: type[BothyError], machine: bool) -> None:
    with pytest.raises(kind):
        security.check(asked, machine=machine)


def test_a_profile_that_a_machine_does_not_use_is_told() -> None:
    asked = HostConfig(security_opt=['seccomp={"defaultAction": "SCMP_ACT_ALLOW"}'])
    assert "seccomp" in security.check(asked, machine=True)[0]
    assert security.check(asked, machine=False) == []


def test_devices() -> None:
    nodes, rules = security.devices([DeviceMapping("/dev/null", "/dev/nothing", "r")])
    assert [(n.path, n.type, n.major, n.minor) for n in nodes] == [("/dev/nothing", "c", 1, 3)]
    assert [(r.allow, r.access) for r in rules] == [(True, "r")]
    with pytest.raises(NotFound):
        security.devices([DeviceMapping("/dev/no-such-device")])
    with pytest.raises(Invalid):
        security.devices([DeviceMapping("/etc/passwd", "/dev/x")])


# -- merging


IMAGE = ImageConfig(
    entrypoint=["/entry"], cmd=["a", "b"], env=["PATH=/bin", "A=image"], working_dir="/w", user="u", exposed_ports={"80/tcp": {}},
    volumes={"/v": {}}, labels={"l": "image", "m": "image"}, stop_signal="SIGINT",
)  # fmt: skip


def test_the_image_fills_in() -> None:
    found = merge.merged(Config(env=["A=mine", "B=2"], labels={"l": "mine"}), IMAGE)
    assert merge.arguments(found) == ["/entry", "a", "b"]
    assert found.env == ["PATH=/bin", "A=mine", "B=2"]
    assert (found.working_dir, found.user, found.stop_signal) == ("/w", "u", "SIGINT")
    assert found.labels == {"l": "mine", "m": "image"}
    assert "/v" in found.volumes
    assert "80/tcp" in found.exposed_ports


@pytest.mark.parametrize(
    ("entrypoint", "cmd", "expected"),
    [
        (None, ["x"], ["/entry", "x"]),
        (["/mine"], None, ["/mine"]),
        (["/mine"], ["x"], ["/mine", "x"]),
        ([""], ["x"], ["x"]),
        (None, [], ["/entry", "a", "b"]),
    ],
)
def test_entrypoint_and_cmd(entrypoint: list[str] | None, cmd: list[str] | None, expected: list[str]) -> None:
    assert merge.arguments(merge.merged(Config(entrypoint=entrypoint, cmd=cmd), IMAGE)) == expected


def test_no_command_is_refused() -> None:
    with pytest.raises(Invalid, match="no command"):
        merge.merged(Config(), ImageConfig())
    with pytest.raises(Invalid, match="no command"):
        merge.merged(Config(entrypoint=[""]), IMAGE)


def test_a_variable_can_be_taken_out() -> None:
    assert merge.merged_env(["A=1", "B=2"], ["A"]) == ["B=2"]


@pytest.mark.parametrize(
    ("text", "number"),
    [("KILL", 9), ("SIGTERM", 15), ("sigint", 2), ("9", 9), ("RTMIN+3", signal.SIGRTMIN + 3), ("SIGRTMAX-1", signal.SIGRTMAX - 1)],
)
def test_signals(text: str, number: int) -> None:
    assert merge.signal_number(text) == number


@pytest.mark.parametrize("text", ["WHAT", "0", "65", "-1", "RTMIN+99"])
def test_bad_signals_are_refused(text: str) -> None:
    with pytest.raises(Invalid):
        merge.signal_number(text)


def test_stop_order() -> None:
    assert merge.stop_order(Config(), None, "") == (15, 10)
    assert merge.stop_order(Config(stop_signal="INT", stop_timeout=3), None, "") == (2, 3)
    assert merge.stop_order(Config(stop_signal="INT", stop_timeout=3), 0, "HUP") == (1, 0)
