"""Attach, exec, wait, logs and events over the socket, as Docker's clients use them, with real workloads behind."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
from collections.abc import Sequence
from typing import Any

import pytest

from bothy import errors
from bothy.api import frames
from bothy.api.client import Client, Hijacked
from tests.support.engine import TestEngine, await_, kill9


def create(api: Client, *cmd: str, **config: Any) -> str:
    host_config = {"NetworkMode": "none", **config.pop("HostConfig", {})}
    body = {"Image": "busybox", "Cmd": list(cmd), "HostConfig": host_config, **config}
    return str(api.request("POST", "/v1.47/containers/create", body=body).json()["Id"])


def attach(api: Client, workload: str, **query: Any) -> Hijacked:
    wanted = {"stream": 1, "stdin": 1, "stdout": 1, "stderr": 1, **query}
    return api.hijack("POST", f"/v1.47/containers/{workload}/attach", wanted)


def read_all(taken: Hijacked) -> dict[int, bytes]:
    """What came on each stream, up to the end of the connection."""
    with socket.socket(fileno=os.dup(taken.sock.fileno())) as sock:
        taken.sock.close()
        sock.settimeout(20)
        decoder, found = frames.Decoder(), {1: b"", 2: b""}
        data = taken.leftover
        while True:
            for stream, part in decoder.feed(data) if taken.framed else [(1, data)]:
                found[stream] += part
            data = sock.recv(65536)
            if not data:
                assert decoder.is_between
                return found


def start(api: Client, workload: str) -> None:
    assert api.request("POST", f"/v1.47/containers/{workload}/start").status == 204


def test_attach_wait_start_as_docker_run_does(api):
    workload = create(api, "sh", "-c", "echo out; echo err >&2; exit 3")
    taken = attach(api, workload)
    waiting = api.begin("POST", f"/v1.47/containers/{workload}/wait", {"condition": "next-exit"}).response()
    start(api, workload)
    assert read_all(taken) == {1: b"out\n", 2: b"err\n"}
    assert waiting.json() == {"StatusCode": 3}


@pytest.mark.parametrize("size", [0, 1, 70_000, 1_000_000])
def test_stdin_sent_before_the_start_arrives_whole(api, size):
    workload = create(api, "sh", "-c", "md5sum | cut -c1-32; echo end", OpenStdin=True, StdinOnce=True)
    taken = attach(api, workload)
    start(api, workload)
    data = os.urandom(size)
    taken.sock.sendall(data)
    taken.sock.shutdown(socket.SHUT_WR)
    assert read_all(taken)[1] == hashlib.md5(data).hexdigest().encode() + b"\nend\n"


def test_stdin_and_half_close_together_with_the_request(settled, api):
    """A client that says everything at once: request, stdin, end of stdin."""
    workload = create(api, "cat", OpenStdin=True, StdinOnce=True)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20)
        sock.connect(str(settled.run_folder / "bothy.sock"))
        query = "stream=1&stdin=1&stdout=1"
        head = f"POST /containers/{workload}/attach?{query} HTTP/1.1\r\nHost: x\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\n"
        sock.sendall(head.encode() + b"all at once")
        sock.shutdown(socket.SHUT_WR)
        start(api, workload)
        data = b""
        while part := sock.recv(4096):
            data += part
    assert data.startswith(b"HTTP/1.1 101 ")
    assert data.endswith(frames.encode(1, b"all at once"))


def test_an_attach_with_logs_after_the_exit_has_the_output(api):
    workload = create(api, "sh", "-c", "echo out; echo err >&2")
    start(api, workload)
    api.request("POST", f"/containers/{workload}/wait").json()
    assert read_all(attach(api, workload, logs=1, stream=0)) == {1: b"out\n", 2: b"err\n"}


def test_a_terminal_is_one_raw_stream(api):
    workload = create(
        api, "sh", "-c", "stty size; read x; echo got $x", OpenStdin=True, Tty=True, HostConfig={"ConsoleSize": [24, 80]}
    )
    taken = attach(api, workload)
    assert not taken.framed
    start(api, workload)
    taken.sock.sendall(b"word\r")
    assert b"got word\r\n" in read_all(taken)[1]


def run_exec(api: Client, workload: str, *cmd: str, **request: Any) -> tuple[str, Hijacked]:
    body = {"AttachStdout": True, "AttachStderr": True, "Cmd": list(cmd), **request}
    session = api.request("POST", f"/v1.47/containers/{workload}/exec", body=body).json()["Id"]
    return session, api.hijack("POST", f"/v1.47/exec/{session}/start", body={"Detach": False, "Tty": bool(request.get("Tty"))})


def exec_code(api: Client, session: str) -> int | None:
    found: dict[str, Any] = {}

    def ended() -> bool:
        found.update(api.request("GET", f"/v1.47/exec/{session}/json").json())
        return not found["Running"]

    await_(ended, "the exec to end")
    code: int | None = found["ExitCode"]
    return code


def test_exec(api):
    workload = create(api, "sleep", "300")
    start(api, workload)
    session, taken = run_exec(api, workload, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert read_all(taken) == {1: b"out\n", 2: b"err\n"}
    assert exec_code(api, session) == 7
    session, taken = run_exec(api, workload, "wc", "-c", AttachStdin=True)
    taken.sock.sendall(b"x" * 200_000)
    taken.sock.shutdown(socket.SHUT_WR)
    assert read_all(taken)[1].strip() == b"200000"
    assert exec_code(api, session) == 0


@pytest.mark.parametrize(("cmd", "code"), [("/nothing", 127), ("/etc", 126)])
def test_an_exec_that_can_not_run_says_so_in_the_stream(api, cmd, code):
    workload = create(api, "sleep", "300")
    start(api, workload)
    session, taken = run_exec(api, workload, cmd)
    assert cmd.encode() in read_all(taken)[2]
    assert exec_code(api, session) == code


@pytest.mark.parametrize(
    ("cmd", "words", "errno"), [("/nothing", "no such file or directory", 2), ("/etc", "permission denied", 13)]
)
def test_a_program_that_can_not_run_is_told_with_stage_and_errno(api, cmd, words, errno):
    workload = create(api, cmd)
    with pytest.raises(errors.Invalid) as raised:
        api.request("POST", f"/containers/{workload}/start")
    assert (raised.value.stage, raised.value.errno) == ("exec", errno)
    assert words in raised.value.message


def test_logs_follow_to_the_end(api):
    workload = create(api, "sh", "-c", "for i in 1 2 3; do echo line $i; sleep 0.05; done; echo last >&2")
    start(api, workload)
    response = api.request("GET", f"/v1.47/containers/{workload}/logs", {"stdout": 1, "stderr": 1, "follow": 1})
    assert response.headers["content-type"] == "application/vnd.docker.multiplexed-stream"
    parts = frames.Decoder().feed(response.read())
    assert b"".join(d for s, d in parts if s == 1) == b"line 1\nline 2\nline 3\n"
    assert b"".join(d for s, d in parts if s == 2) == b"last\n"


def test_logs_of_fifty_thousand_lines(api):
    workload = create(api, "seq", "50000", HostConfig={"LogConfig": {"Type": "json-file", "Config": {"max-size": "100m"}}})
    start(api, workload)
    api.request("POST", f"/containers/{workload}/wait").json()
    begun = time.monotonic()
    parts = frames.Decoder().feed(api.request("GET", f"/containers/{workload}/logs", {"stdout": 1}).read())
    assert b"".join(data for _, data in parts) == b"".join(b"%d\n" % n for n in range(1, 50001))
    assert time.monotonic() - begun < 10


def actions(lines: Sequence[dict[str, Any]], workload: str) -> list[str]:
    return [line["Action"] for line in lines if line["Actor"]["ID"] == workload]


def test_events_tell_a_life_in_order(api):
    since = str(time.time())
    workload = create(api, "true")
    start(api, workload)
    api.request("POST", f"/containers/{workload}/wait").json()
    api.request("DELETE", f"/containers/{workload}").read()
    query = {"since": since, "until": str(time.time()), "filters": {"type": ["container"]}}
    lines = list(api.request("GET", "/v1.47/events", query).lines())
    assert actions(lines, workload) == ["create", "start", "die", "destroy"]
    assert lines[-1]["status"] == "destroy"


def test_stats_and_top_and_sizes(api):
    workload = create(api, "sh", "-c", "dd if=/dev/zero of=/file bs=1024 count=64 2>/dev/null; sleep 300; true")
    start(api, workload)
    await_(lambda: len(api.request("GET", f"/containers/{workload}/top").json()["Processes"]) == 2, "the sleep")
    sample = api.request("GET", f"/v1.47/containers/{workload}/stats", {"stream": "false"}).json()
    assert sample["memory_stats"]["usage"] > 0
    assert sample["pids_stats"]["current"] == 2
    assert sample["precpu_stats"]["cpu_usage"]["total_usage"] <= sample["cpu_stats"]["cpu_usage"]["total_usage"]
    assert sample["preread"] < sample["read"]
    assert api.request("GET", f"/containers/{workload}/json", {"size": 1}).json()["SizeRw"] >= 65536
    (listed,) = api.request("GET", "/containers/json", {"size": 1, "filters": {"id": [workload]}}).json()
    assert listed["SizeRw"] >= 65536


def test_an_attached_stream_outlives_the_daemon(settled: TestEngine, api: Client):
    workload = create(api, "sh", "-c", "while read x; do echo got $x; done; exit 4", OpenStdin=True, StdinOnce=True)
    taken = attach(api, workload)
    start(api, workload)
    taken.sock.sendall(b"before\n")
    data = taken.leftover
    while not data.endswith(b"got before\n"):
        data += taken.sock.recv(100)
    kill9(settled.pid_of("bothyd"))
    taken.sock.sendall(b"without\n")
    data = b""
    while not data.endswith(b"got without\n"):
        data += taken.sock.recv(100)
    taken.sock.shutdown(socket.SHUT_WR)
    assert read_all(taken) == {1: b"", 2: b""}
    with Client(api.socket_path) as again:
        assert again.request("POST", f"/containers/{workload}/wait").json() == {"StatusCode": 4}


def test_images_travel(api, tmp_path):
    archive = api.request("GET", "/v1.47/images/busybox/get").read()
    api.request("POST", "/images/busybox:latest/tag", {"repo": "kept", "tag": "1"}).read()
    api.request("DELETE", "/images/busybox:latest").read()
    with pytest.raises(errors.NotFound):
        api.request("GET", "/images/busybox/json")
    loaded = list(api.request("POST", "/v1.47/images/load", {"quiet": 1}, iter([archive[:1000], archive[1000:]])).lines())
    assert loaded == [{"stream": "Loaded image: busybox:latest\n"}]
    assert api.request("DELETE", "/images/kept:1").json() == [{"Untagged": "kept:1"}]
    with pytest.raises(errors.BothyError):
        api.request("POST", "/images/load", body=b"no archive at all")


def test_the_answers_are_quick(api):
    """The door's own time: a request that does nothing, many times; the median is what counts."""
    workload = create(api, "true")

    def median(path: str) -> float:
        times = []
        for _ in range(100):
            begun = time.perf_counter()
            json.dumps(api.request("GET", path).json())
            times.append(time.perf_counter() - begun)
        return sorted(times)[50]

    assert median("/containers/json?all=1") < 0.005
    assert median(f"/containers/{workload}/json") < 0.005
