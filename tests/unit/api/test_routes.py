"""Handlers: what they ask of the engine, and what they make of its answers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from bothy.api import frames
from bothy.engine.model import Config, Event, LogEntry, Status
from bothy.keeper.model import Exit
from tests.unit.api.conftest import Door, read_head
from tests.unit.api.double import ID, workload


def test_create_types_its_body(at_door):
    async def scenario(door: Door) -> None:
        body = {
            "Image": "busybox",
            "Cmd": ["sh", "-c", "true"],
            "Tty": True,
            "HostConfig": {"Memory": 1024, "PortBindings": {"80/tcp": [{"HostPort": "8080"}]}, "UTSMode": "host"},
            "NetworkingConfig": {"EndpointsConfig": {"bridge": {"Aliases": ["x"], "IPAMConfig": None}}},
        }
        made = await door.json("POST", "/v1.47/containers/create?name=web", body)
        assert made == {"Id": ID, "Warnings": ["a warning"]}
        name, config, host_config, networking = door.engine.containers.created[0]
        assert (name, config.tty, host_config.memory, host_config.uts_mode) == ("web", True, 1024, "host")
        assert networking.endpoints_config["bridge"].aliases == ["x"]

    at_door(scenario)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "the request's body is not JSON"),
        (b"[1]", "the request's body: expected an object, got list"),
        (b"[" * 200_000, "the request's body is nested too deeply"),
    ],
)
def test_bodies_that_are_none(at_door, body, words):
    async def scenario(door: Door) -> None:
        status, _, answer = await door.ask("POST", "/containers/create", body)
        assert status == 400
        assert json.loads(answer)["message"].startswith(words)

    at_door(scenario)


def test_create_passes_the_platform_on(at_door):
    async def scenario(door: Door) -> None:
        await door.json("POST", "/containers/create?platform=linux%2Farm64", {"Image": "busybox"})
        assert door.engine.containers.asked == [("create", "linux/arm64")]

    at_door(scenario)


def test_list_reads_its_query(at_door):
    async def scenario(door: Door) -> None:
        door.engine.containers.records[ID] = workload()
        listed = await door.json("GET", "/containers/json?all=1&size=1&filters=%7B%22label%22%3A%7B%22a%22%3Atrue%7D%7D")
        assert door.engine.containers.asked[-1] == ("list", True, 0, {"label": ["a"]})
        assert (listed[0]["SizeRw"], listed[0]["SizeRootFs"]) == (3, 9)
        await door.json("GET", "/containers/json?all=0")
        assert door.engine.containers.asked[-1] == ("list", False, 0, {})

    at_door(scenario)


@pytest.mark.parametrize(
    ("request_line", "asked"),
    [
        ("POST /containers/web/stop?t=3&signal=INT", ("stop", "web", 3, "INT")),
        ("POST /containers/web/restart", ("stop", "web", None, "")),
        ("POST /containers/web/pause", ("pause", "web")),
        ("POST /containers/web/rename?name=other", ("rename", "web", "other")),
        ("POST /containers/web/resize?h=24&w=80", ("resize", "web", 24, 80)),
        ("DELETE /containers/web?force=true&v=1", ("remove", "web", True, True)),
        ("DELETE /containers/web?force=0", ("remove", "web", False, False)),
    ],
)
def test_verbs_pass_their_parameters_on(at_door, request_line, asked):
    async def scenario(door: Door) -> None:
        status, _, body = await door.ask(*request_line.split(" "))
        assert status in (200, 204)
        assert body == b""
        assert door.engine.containers.asked[-1] == asked

    at_door(scenario)


def test_wait_sends_its_head_before_the_exit(at_door):
    async def scenario(door: Door) -> None:
        door.engine.containers.records[ID] = workload()
        reader, writer = await door.open()
        writer.write(f"POST /containers/{ID}/wait?condition=next-exit HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        status, _ = await read_head(reader)
        assert status == 200
        door.engine.containers.watchers[0].set_result(Exit(7))
        assert b'{"StatusCode":7}\n' in await reader.readuntil(b"\r\n0\r\n\r\n")
        writer.close()

    at_door(scenario)


def test_wait_ends_with_its_client(at_door):
    async def scenario(door: Door) -> None:
        door.engine.containers.records[ID] = workload()
        reader, writer = await door.open()
        writer.write(f"POST /containers/{ID}/wait HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await read_head(reader)
        writer.close()
        while not door.engine.containers.watchers[0].cancelled():
            await asyncio.sleep(0.001)

    at_door(scenario)


@pytest.mark.parametrize(
    "path", [f"/containers/{ID}/wait?condition=never", f"/containers/{ID}/logs", f"/containers/{ID}/attach?detachKeys=ctrl-!"]
)
def test_bad_parameters_are_refused_before_the_head(at_door, path):
    async def scenario(door: Door) -> None:
        door.engine.containers.records[ID] = workload()
        status, _, _ = await door.ask("GET" if "logs" in path else "POST", path)
        assert status == 400

    at_door(scenario)


def test_logs_are_framed(at_door):
    async def scenario(door: Door) -> None:
        door.engine.containers.records[ID] = workload()
        door.engine.containers.entries = [LogEntry("stdout", "T1", b"one\n"), LogEntry("stderr", "T2", b"two\n")]
        status, headers, body = await door.ask("GET", f"/containers/{ID}/logs?stdout=1&stderr=1&timestamps=1&tail=5&since=3")
        assert (status, headers["content-type"]) == (200, "application/vnd.docker.multiplexed-stream")
        assert body == frames.encode(1, b"T1 one\n") + frames.encode(2, b"T2 two\n")
        _, wanted = door.engine.containers.asked[-1]
        assert (wanted["tail"], wanted["since"], wanted["follow"]) == (5, "3", False)

    at_door(scenario)


def test_logs_that_the_engine_refuses_have_a_status(at_door):
    async def scenario(door: Door) -> None:
        door.engine.containers.records[ID] = workload()
        status, _, body = await door.ask("GET", f"/containers/{ID}/logs?stdout=1&since=never")
        assert (status, json.loads(body)["message"]) == (400, "'never' is not a time")

    at_door(scenario)


def test_logs_of_a_terminal_are_plain(at_door):
    async def scenario(door: Door) -> None:
        door.engine.containers.records[ID] = workload(config=Config(tty=True))
        door.engine.containers.entries = [LogEntry("stdout", "T1", b"one\r\n")] * 3
        _, headers, body = await door.ask("GET", f"/containers/{ID}/logs?stdout=1")
        assert (headers["content-type"], body) == ("application/vnd.docker.raw-stream", b"one\r\n" * 3)

    at_door(scenario)


def test_followed_logs_arrive_as_they_come_and_end_with_the_client(at_door):
    async def scenario(door: Door) -> None:
        door.engine.containers.records[ID] = workload(config=Config(tty=True))
        reader, writer = await door.open()
        writer.write(f"GET /containers/{ID}/logs?stdout=1&follow=1 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await read_head(reader)
        for line in (b"one\n", b"two\n"):
            door.engine.containers.entries = [LogEntry("stdout", "T", line)]
            door.engine.containers.more.set()
            await asyncio.wait_for(reader.readuntil(line + b"\r\n"), 2)
        writer.close()
        await asyncio.wait_for(door.engine.containers.logs_ended.wait(), 2)

    at_door(scenario)


def test_a_long_log_is_whole(at_door):
    async def scenario(door: Door) -> None:
        door.engine.containers.records[ID] = workload(config=Config(tty=True))
        door.engine.containers.entries = [LogEntry("stdout", "T", b"%07d\n" % n) for n in range(30000)]
        _, _, body = await door.ask("GET", f"/containers/{ID}/logs?stdout=1")
        assert body == b"".join(entry.data for entry in door.engine.containers.entries)

    at_door(scenario)


def test_events_are_lines_and_begin_before_the_head(at_door):
    async def scenario(door: Door) -> None:
        reader, writer = await door.open()
        writer.write(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
        await read_head(reader)
        assert door.engine.events.listening == 1
        await door.engine.events.queue.put(Event("container", "start", ID, {"image": "busybox", "name": "web"}, 1_500_000_000))
        line = json.loads((await reader.readuntil(b"}\n")).split(b"\r\n", 1)[1])
        assert line == {
            "status": "start", "id": ID, "from": "busybox", "Type": "container", "Action": "start",
            "Actor": {"ID": ID, "Attributes": {"image": "busybox", "name": "web"}}, "scope": "local", "time": 1, "timeNano": 1_500_000_000,
        }  # fmt: skip
        await door.engine.events.queue.put(None)
        assert (await reader.readuntil(b"0\r\n\r\n")).endswith(b"0\r\n\r\n")
        writer.close()

    at_door(scenario)


def test_the_end_of_the_server_ends_endless_answers(at_door):
    async def scenario(door: Door) -> None:
        reader, writer = await door.open()
        writer.write(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
        await read_head(reader)
        await door.runner.close()
        assert b"0\r\n\r\n" not in await reader.read()
        writer.close()

    at_door(scenario)


def test_stats_once_and_of_what_does_not_run(at_door):
    async def scenario(door: Door) -> None:
        door.engine.containers.records[ID] = workload(status=Status.RUNNING)
        sample = await door.json("GET", "/containers/web/stats?stream=0&one-shot=1")
        assert (sample["cpu_stats"]["cpu_usage"]["total_usage"], sample["name"], sample["memory_stats"]) == (
            7,
            "/web",
            {"usage": 1},
        )
        assert sample["preread"].startswith("0001")
        door.engine.containers.records[ID] = workload(status=Status.EXITED)
        sample = await door.json("GET", "/containers/web/stats?stream=false")
        assert (sample["memory_stats"], sample["pids_stats"]) == ({}, {})

    at_door(scenario)


def test_load_spools_and_tells(at_door):
    async def scenario(door: Door) -> None:
        status, _, body = await door.ask("POST", "/images/load", b"archive")
        assert status == 200
        assert [json.loads(line) for line in body.splitlines()] == [
            {"status": "unpacking"},
            {"stream": "Loaded image: busybox:latest\n"},
        ]
        assert door.engine.images.loaded == [b"archive"]
        _, _, body = await door.ask("POST", "/images/load?quiet=1", b"archive")
        assert [json.loads(line) for line in body.splitlines()] == [{"stream": "Loaded image: busybox:latest\n"}]

    at_door(scenario)


def test_load_in_chunks(at_door):
    async def scenario(door: Door) -> None:
        reader, writer = await door.open()
        writer.write(b"POST /images/load HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(100):
            writer.write(b"8000\r\n" + b"x" * 0x8000 + b"\r\n")
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        status, _ = await read_head(reader)
        assert status == 200
        assert len(door.engine.images.loaded[0]) == 100 * 0x8000
        writer.close()

    at_door(scenario)


def test_failures_before_the_first_line_have_a_status_and_later_ones_a_line(at_door):
    async def scenario(door: Door) -> None:
        status, _, body = await door.ask("POST", "/images/load", b"bad")
        assert (status, json.loads(body)["message"]) == (400, "not an image archive")
        status, _, body = await door.ask("POST", "/images/load", b"half")
        last = json.loads(body.splitlines()[-1])
        assert status == 200
        assert (last["error"], last["errorDetail"]) == ("a layer is broken", {"message": "a layer is broken"})
        status, _, body = await door.ask("POST", "/images/load")
        assert status == 400

    at_door(scenario)


def test_an_upload_that_breaks_off_is_forgotten(at_door):
    async def scenario(door: Door) -> None:
        _, writer = await door.open()
        writer.write(b"POST /images/load HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nabc")
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.close()
        await asyncio.sleep(0.02)
        assert door.engine.images.loaded == []

    at_door(scenario)


def test_import_and_save(at_door):
    async def scenario(door: Door) -> None:
        status, _, body = await door.ask("POST", "/images/create?fromSrc=-&repo=mine&tag=1&changes=CMD+sh&changes=USER+me", b"tar")
        assert (status, json.loads(body)) == (200, {"status": "sha256:" + "1" * 64})
        assert door.engine.images.asked[-1] == ("import", b"tar", "mine", "1", "", ["CMD sh", "USER me"])
        status, headers, body = await door.ask("GET", "/images/get?names=a/b:1&names=busybox")
        assert (status, headers["content-type"], body) == (200, "application/x-tar", b"archive of a/b:1,busybox")
        assert (await door.ask("GET", "/images/missing/get"))[0] == 404

    at_door(scenario)


def test_names_of_images_have_slashes(at_door):
    async def scenario(door: Door) -> None:
        found = await door.json("GET", "/v1.44/images/registry.example:5000/a/b:1/json")
        assert found["RepoTags"] == ["registry.example:5000/a/b:1"]
        assert (await door.ask("POST", "/images/a%2Fb/tag?repo=c/d&tag=2"))[0] == 201
        assert door.engine.images.asked[-1] == ("tag", "a/b", "c/d", "2")

    at_door(scenario)


def test_our_own_progress(at_door):
    async def scenario(door: Door) -> None:
        door.engine.containers.records[ID] = workload()
        _, _, body = await door.ask("POST", "/bothy/containers/web/prepare")
        assert [json.loads(line) for line in body.splitlines()] == [
            {"status": "making a template"},
            {"status": "still at it"},
            {"done": True},
        ]
        _, _, body = await door.ask("POST", "/v1.47/bothy/images/bootstrap", {"Source": "debian:bookworm", "Include": ["curl"]})
        lines: list[dict[str, Any]] = [json.loads(line) for line in body.splitlines()]
        assert lines == [{"status": "making debian:bookworm with curl"}, {"id": "sha256:" + "1" * 64, "name": "busybox:latest"}]
        assert (await door.ask("POST", "/bothy/images/bootstrap", {}))[0] == 400

    at_door(scenario)


def test_a_network_is_asked_for_as_clients_do(at_door):
    async def scenario(door: Door) -> None:
        body = {
            "Name": "shop", "CheckDuplicate": True, "Driver": "bridge", "EnableIPv6": True, "Internal": True, "Attachable": False,
            "IPAM": {"Driver": "default", "Config": [{"Subnet": "10.1.0.0/16", "IPRange": None, "Gateway": None,
                     "AuxiliaryAddresses": None}, {"Subnet": "fd00::/64", "IPRange": "fd00::/80"}], "Options": None},
            "Options": {"com.docker.network.driver.mtu": "1400"}, "Labels": {"a": "b"},
        }  # fmt: skip
        assert await door.json("POST", "/v1.47/networks/create", body) == {"Id": "9" * 64, "Warning": "mind\nthe gap"}
        assert (await door.ask("POST", "/networks/create", {"Name": "plain"}))[0] == 201
        one, plain = door.engine.networks.asked
        assert (one.name, one.ipv6, one.internal, one.labels) == ("shop", True, True, {"a": "b"})
        assert [(pool.subnet, pool.ip_range) for pool in one.pools] == [("10.1.0.0/16", ""), ("fd00::/64", "fd00::/80")]
        assert (plain.pools, plain.ipv6) == ([], False)

    at_door(scenario)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"Driver": "overlay"}, 503, "swarm"),
        ({"Scope": "swarm"}, 503, "swarm"),
        ({"Driver": "host"}, 403, 'only one instance of \\"host\\" network is allowed'),
        ({"Driver": "weave"}, 404, 'plugin \\"weave\\" not found'),
        ({"Driver": "macvlan"}, 501, "macvlan is not supported"),
        ({"Scope": "moon"}, 400, "invalid scope"),
        ({"IPAM": {"Driver": "dhcp"}}, 404, 'plugin \\"dhcp\\" not found'),
        ({"IPAM": {"Config": [{"Gateway": "10.0.0.1"}]}}, 400, "invalid subnet"),
        ({"IPAM": {"Config": "x"}}, 400, "IPAM"),
        ({"EnableIPv4": False}, 501, "without IPv4"),
        ({"ConfigOnly": True}, 501, "only a configuration"),
    ],
)
def test_networks_that_can_not_be_are_refused(at_door, body: dict[str, Any], status: int, words: str):
    async def scenario(door: Door) -> None:
        answer, _, text = await door.ask("POST", "/v1.47/networks/create", {"Name": "x", **body})
        assert answer == status
        assert words in text.decode()
        assert door.engine.networks.asked == []

    at_door(scenario)


def test_networks_are_changed(at_door):
    async def scenario(door: Door) -> None:
        wanted = {"Aliases": ["db"], "IPAMConfig": {"IPv4Address": "10.1.0.5"}, "GwPriority": 2, "DriverOpts": None}
        body = {"Container": "web", "EndpointConfig": wanted}
        assert (await door.ask("POST", "/v1.47/networks/shop/connect", body))[0] == 200
        assert (await door.ask("POST", "/v1.47/networks/shop/disconnect", {"Container": "web", "Force": True}))[0] == 200
        (ref, name, endpoint), gone = door.engine.networks.asked
        assert (ref, name, gone) == ("shop", "web", ("shop", "web", True))
        assert (endpoint.aliases, endpoint.gw_priority, endpoint.ipam_config) == (["db"], 2, {"IPv4Address": "10.1.0.5"})
        assert (await door.ask("POST", "/v1.47/networks/shop/connect", {}))[0] == 400
        assert (await door.ask("DELETE", "/v1.47/networks/bridge"))[0] == 403
        assert await door.json("POST", "/v1.47/networks/prune") == {"NetworksDeleted": ["old"]}
        assert (await door.json("GET", "/bothy/networks/doctor"))["Problems"] == []

    at_door(scenario)


def test_networks_have_dockers_shape(at_door):
    async def scenario(door: Door) -> None:
        (network,) = await door.json("GET", "/networks")
        assert (network["Name"], network["Driver"], network["IPAM"]["Config"][0]["Subnet"]) == ("bridge", "bridge", "172.30.0.0/16")

    at_door(scenario)
