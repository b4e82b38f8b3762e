"""Records to Docker's JSON."""

from __future__ import annotations

from pathlib import Path

import pytest

from bothy.api.server.schema import containers, images, networks, values
from bothy.engine.model import (
    Config,
    Endpoint,
    EndpointConfig,
    ExecRequest,
    ExecSession,
    HostConfig,
    MountRecord,
    NetworkingConfig,
    PublishedPort,
    RestartPolicy,
    Status,
    Wall,
)
from bothy.networks.model import Network
from tests.unit.api.double import ID, image, workload

NOW = values.unix("2026-01-02T04:04:05Z")
STARTED = "2026-01-02T03:04:05.000000000Z"
ENDPOINT = Endpoint("9" * 64, "bridge", "172.30.0.2/16", "172.30.0.1", "02:00:00:00:00:02")
PORTS = [
    PublishedPort(80, "tcp", "0.0.0.0", 8080),
    PublishedPort(80, "tcp", "::", 8080),
    PublishedPort(53, "udp", "127.0.0.1", 5353),
]


def running(**changes):
    return workload(status=Status.RUNNING, started=STARTED, pid=42, **changes)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "Less than a second"),
        (1, "1 second"),
        (59.9, "59 seconds"),
        (60, "About a minute"),
        (150, "2 minutes"),
        (3599, "59 minutes"),
        (3600, "About an hour"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
        (15 * 86400, "2 weeks"),
        (70 * 86400, "2 months"),
        (800 * 86400, "2 years"),
    ],
)
def test_durations_for_people(seconds, words):
    assert values.duration(seconds) == words


@pytest.mark.parametrize(
    ("record", "state", "text"),
    [
        (workload(), "created", "Created"),
        (workload(status=Status.STARTING), "created", "Created"),
        (running(), "running", "Up About an hour"),
        (workload(status=Status.PAUSED, started="2026-01-02T04:04:00Z"), "paused", "Up 5 seconds (Paused)"),
        (workload(status=Status.EXITED, exit_code=3, finished=STARTED), "exited", "Exited (3) About an hour ago"),
        (
            workload(status=Status.RESTARTING, exit_code=1, finished="2026-01-02T04:04:03Z"),
            "restarting",
            "Restarting (1) 2 seconds ago",
        ),
        (workload(status=Status.REMOVING), "removing", "Removal In Progress"),
        (workload(status=Status.DEAD), "dead", "Dead"),
    ],
)
def test_states_in_dockers_words(record, state, text):
    summary = containers.summary(record, NOW)
    assert (summary["State"], summary["Status"]) == (state, text)
    assert containers.state(record)["Status"] == state


def test_a_summary():
    record = running(
        endpoints=[ENDPOINT],
        ports=PORTS,
        args=["1", "a b"],
        mounts=[MountRecord("volume", "/v/_data", "/data", name="v"), MountRecord("tmpfs", "", "/tmp", listed=False)],
        config=Config(labels={"a": "b"}, exposed_ports={"80": {}, "443/tcp": {}}),
    )
    summary = containers.summary(record, NOW)
    assert summary["Names"] == ["/web"]
    assert summary["Command"] == "sleep 1 'a b'"
    assert summary["Created"] == NOW - 3600
    assert summary["Ports"] == [
        {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"IP": "::", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"IP": "127.0.0.1", "PrivatePort": 53, "PublicPort": 5353, "Type": "udp"},
        {"PrivatePort": 443, "Type": "tcp"},
    ]
    assert summary["NetworkSettings"]["Networks"]["bridge"]["IPAddress"] == "172.30.0.2"
    assert [m["Name"] for m in summary["Mounts"]] == ["v"]
    assert "SizeRw" not in summary


def test_inspect_of_what_runs():
    networking = NetworkingConfig({"bridge": EndpointConfig(aliases=["alias"])})
    record = running(
        endpoints=[ENDPOINT], ports=PORTS, config=Config(exposed_ports={"443/tcp": {}}, hostname="h"), networking=networking
    )
    data = containers.inspect(record, Path("/f"), ["e1"])
    assert data["State"] == {
        "Status": "running", "Running": True, "Paused": False, "Restarting": False, "OOMKilled": False, "Dead": False, "Pid": 42,
        "ExitCode": 0, "Error": "", "StartedAt": STARTED, "FinishedAt": "0001-01-01T00:00:00Z",
    }  # fmt: skip
    settings = data["NetworkSettings"]
    assert settings["Ports"] == {
        "443/tcp": None,
        "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}],
        "53/udp": [{"HostIp": "127.0.0.1", "HostPort": "5353"}],
    }
    assert (settings["IPAddress"], settings["IPPrefixLen"], settings["Gateway"]) == ("172.30.0.2", 16, "172.30.0.1")
    assert settings["Networks"]["bridge"]["DNSNames"] == ["web", "alias", ID[:12], "h"]
    assert (data["Name"], data["Image"], data["ExecIDs"]) == ("/web", record.image, ["e1"])
    assert data["HostsPath"] == "/f/hosts"


def test_inspect_of_what_has_ended_has_no_addresses():
    data = containers.inspect(workload(status=Status.EXITED, endpoints=[ENDPOINT], ports=PORTS, pid=42), Path("/f"), [])
    assert data["NetworkSettings"]["Ports"] == {}
    assert data["NetworkSettings"]["Networks"]["bridge"]["IPAddress"] == ""
    assert (data["State"]["Pid"], data["State"]["Running"], data["ExecIDs"]) == (0, False, None)


def test_host_config_has_the_defaults_that_came_to_be():
    data = containers.host_config(workload())
    assert (data["NetworkMode"], data["IpcMode"], data["ShmSize"], data["RestartPolicy"]["Name"]) == (
        "bridge",
        "private",
        1 << 26,
        "no",
    )
    assert (data["LogConfig"]["Type"], data["Binds"], data["PidsLimit"]) == ("json-file", None, None)
    asked = HostConfig(memory=5, binds=["/a:/b"], restart_policy=RestartPolicy("always"), network_mode="host", init=True)
    data = containers.host_config(workload(host_config=asked, wall=Wall.VM))
    assert (data["Memory"], data["Binds"], data["RestartPolicy"]["Name"], data["NetworkMode"]) == (5, ["/a:/b"], "always", "host")
    assert (data["Runtime"], data["Init"]) == ("vm", True)


def test_what_is_asked_for_is_shown_before_it_is_attached():
    asked = NetworkingConfig({"net": None})
    assert list(values.networks(workload(networking=asked))) == ["net"]
    assert values.networks(workload()) == {}


def test_config_keeps_null_apart_from_empty():
    data = containers.config(Config(cmd=None, entrypoint=[], labels={"a": "b"}))
    assert (data["Cmd"], data["Entrypoint"], data["Labels"], data["OnBuild"]) == (None, [], {"a": "b"}, None)


def test_execs():
    request = ExecRequest(cmd=["sh", "-c", "x"], tty=True, attach_stdin=True, user="me")
    data = containers.exec_inspect(ExecSession("e1", ID, request, running=True, pid=9))
    assert (data["ID"], data["Running"], data["ExitCode"], data["Pid"], data["ContainerID"]) == ("e1", True, None, 9, ID)
    assert data["ProcessConfig"] == {"tty": True, "entrypoint": "sh", "arguments": ["-c", "x"], "privileged": False, "user": "me"}


def test_an_image_whose_archive_has_a_time_that_is_none():
    assert images.summary(image(created="yesterday"))["Created"] == 0


def test_images():
    summary = images.summary(image())
    assert (summary["RepoTags"], summary["Created"], summary["Size"], summary["Labels"]) == (
        ["busybox:latest"],
        NOW - 3600,
        1000,
        {"a": "b"},
    )
    data = images.inspect(image(variant="v8"))
    assert (data["Architecture"], data["Variant"], data["RootFS"]["Layers"]) == ("amd64", "v8", ["sha256:" + "2" * 64])
    assert (data["Config"]["Env"], data["Config"]["Entrypoint"], data["Config"]["Labels"]) == (["PATH=/bin"], None, {"a": "b"})


def test_who_is_on_a_network():
    network = Network(id="9" * 64, name="bridge", driver="bridge", created="", subnet="172.30.0.0/16", gateway="172.30.0.1")
    data = networks.network(network, [running(endpoints=[ENDPOINT]), running(id="c" * 64)])
    assert data["Containers"] == {
        ID: {
            "Name": "web",
            "EndpointID": values.endpoint_id(ID, "9" * 64),
            "MacAddress": "02:00:00:00:00:02",
            "IPv4Address": "172.30.0.2/16",
            "IPv6Address": "",
        }
    }


def test_a_networks_pools_are_shown_as_they_were_asked_for():
    network = Network(
        "9" * 64, "both", "bridge", "", subnet="10.1.0.0/16", gateway="10.1.0.1", ip_range="10.1.2.0/24", subnet6="fd00::/64",
        gateway6="fd00::1", auxiliary={"a": "10.1.0.9", "b": "fd00::9"}, options={"o": "1"}, labels={"l": "2"},
    )  # fmt: skip
    data = networks.network(network)
    assert data["IPAM"]["Config"] == [
        {"Subnet": "10.1.0.0/16", "IPRange": "10.1.2.0/24", "Gateway": "10.1.0.1", "AuxiliaryAddresses": {"a": "10.1.0.9"}},
        {"Subnet": "fd00::/64", "Gateway": "fd00::1", "AuxiliaryAddresses": {"b": "fd00::9"}},
    ]
    assert (data["EnableIPv6"], data["Options"], data["Labels"], data["Containers"]) == (True, {"o": "1"}, {"l": "2"}, {})


def test_an_endpoint_of_both_versions():
    end = Endpoint("9" * 64, "both", "10.1.0.2/16", "10.1.0.1", "02:42:0a:01:00:02", address6="fd00::2/64", gateway6="fd00::1")
    asked = EndpointConfig({"IPv4Address": "10.1.0.2"}, aliases=["db"], gw_priority=3, network_id="9" * 64)
    up = running(endpoints=[end], networking=NetworkingConfig({"both": asked}))
    shown = values.networks(up)["both"]
    assert (shown["IPAddress"], shown["IPPrefixLen"], shown["Gateway"]) == ("10.1.0.2", 16, "10.1.0.1")
    assert (shown["GlobalIPv6Address"], shown["GlobalIPv6PrefixLen"], shown["IPv6Gateway"]) == ("fd00::2", 64, "fd00::1")
    assert (shown["Aliases"], shown["GwPriority"], shown["DNSNames"][:2]) == (["db"], 3, ["web", "db"])
    down = values.networks(workload(networking=NetworkingConfig({"both": asked})))["both"]
    assert (down["NetworkID"], down["EndpointID"], down["IPAddress"], down["GlobalIPv6Address"]) == ("9" * 64, "", "", "")


def test_links_are_shown_as_docker_does():
    shown = containers.host_config(workload(host_config=HostConfig(links=["db", "db:alias", "/db:/web/x"])))["Links"]
    assert shown == ["/db:/web/db", "/db:/web/alias", "/db:/web/x"]
