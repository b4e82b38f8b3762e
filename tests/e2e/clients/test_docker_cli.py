"""Docker's own command lines over both walls: what scripts and people type. (tests/kernel/api has the streams and terminals of containers.)"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.clients.conftest import socket_of
from tests.e2e.conftest import Walled
from tests.support.engine import Result, await_
from tests.support.terminals import Terminal, Terminals

CLIENTS = [path for path in ("/usr/bin/docker", "/usr/local/bin/docker") if Path(path).exists()]


class Docker:
    """One docker command line, over one wall: `run` and `create` get the runtime."""

    def __init__(self, path: str, bothy: Walled) -> None:
        self.path = path
        self.runtime = ["--runtime", "vm"] if bothy.wall == "vm" else []
        self.env = {**os.environ, "DOCKER_HOST": socket_of(bothy.engine), "DOCKER_CONFIG": str(bothy.engine.run_folder)}

    def argv(self, verb: str, *args: str) -> list[str]:
        return [self.path, verb, *(self.runtime if verb in ("run", "create") else []), *args]

    def __call__(self, verb: str, *args: str, stdin: bytes | None = None) -> Result:
        given = {"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}
        done = subprocess.run(self.argv(verb, *args), capture_output=True, env=self.env, timeout=120, check=False, **given)  # type: ignore[call-overload]
        return Result(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))

    def lines(self, verb: str, *args: str) -> list[str]:
        return self(verb, *args).ok().out.splitlines()


@pytest.fixture(params=CLIENTS or [pytest.param("", marks=pytest.mark.skip(reason="no docker command line is installed"))])
def docker(request: pytest.FixtureRequest, bothy: Walled) -> Docker:
    bothy("ps").ok()
    return Docker(request.param, bothy)


@pytest.fixture
def open_terminal(docker: Docker) -> Iterator[Callable[..., Terminal]]:
    with Terminals() as terminals:
        yield lambda verb, *args: terminals.open(docker.argv(verb, *args), docker.env)


def test_a_shell_on_a_terminal(docker: Docker, open_terminal: Callable[..., Terminal]) -> None:
    terminal = open_terminal("run", "--rm", "-it", "busybox", "sh")
    terminal.expect(r"# ")
    terminal.type("tty; echo a''b\r")
    terminal.expect(r"/dev/[^\r]+\r\nab\r")
    terminal.type("exit 6\r")
    assert terminal.wait() == 6


def test_listing_and_inspecting(docker: Docker) -> None:
    docker("run", "-d", "--name", "t-one", "-l", "role=web", "-p", "127.0.0.1::80", "busybox", "sleep", "300").ok()
    docker("create", "--name", "t-two", "-l", "role=db", "busybox", "true").ok()
    form = ["--format", '{{.Names}}|{{.Image}}|{{.State}}|{{.Label "role"}}']
    assert docker.lines("ps", *form) == ["t-one|busybox|running|web"]
    assert sorted(docker.lines("ps", "-a", *form)) == ["t-one|busybox|running|web", "t-two|busybox|created|db"]
    for asked, found in (
        ("label=role=db", ["t-two"]),
        ("status=running", ["t-one"]),
        ("name=t-", ["t-one", "t-two"]),
        ("publish=80", ["t-one"]),
    ):
        assert sorted(docker.lines("ps", "-a", "--filter", asked, "--format", "{{.Names}}")) == found
    assert json.loads(docker("ps", "--format", "{{json .}}").ok().out)["Ports"].endswith("->80/tcp")
    assert re.fullmatch(r"127\.0\.0\.1:\d+", docker("port", "t-one", "80/tcp").ok().line)
    assert docker("inspect", "--type", "container", "-f", "{{.HostConfig.Runtime}}", "t-one").ok().line == (
        "vm" if docker.runtime else "bothy"
    )
    refused = docker("inspect", "--type", "image", "t-one")
    assert (refused.code, "No such image: t-one" in refused.err) == (1, True)
    assert docker("inspect", "-s", "-f", "{{.SizeRootFs}}", "t-one").ok().line.isdecimal()
    assert "sleep 300" in docker("top", "t-one").ok().out
    assert json.loads(docker("stats", "--no-stream", "--format", "{{json .}}", "t-one").ok().out)["Name"] == "t-one"
    assert "t-one" in docker("system", "df", "-v").ok().out


def test_files_and_images_of_a_workload(docker: Docker, tmp_path: Path) -> None:
    docker("run", "-d", "--name", "t-files", "busybox", "sh", "-c", "echo made > /made; exec sleep 300").ok()
    (tmp_path / "in").write_text("copied in")
    docker("cp", str(tmp_path / "in"), "t-files:/in").ok()
    assert docker("exec", "t-files", "cat", "/in").ok().out == "copied in"
    docker("cp", "t-files:/in", str(tmp_path / "out")).ok()
    assert (tmp_path / "out").read_text() == "copied in"
    assert {"A /in", "A /made"} <= set(docker.lines("diff", "t-files"))
    docker("export", "-o", str(tmp_path / "root.tar"), "t-files").ok()
    with tarfile.open(tmp_path / "root.tar") as root:
        assert "made" in root.getnames()
    docker("commit", "-c", "ENV A=b", "-m", "words", "t-files", "t-committed:1").ok()
    assert docker("run", "--rm", "t-committed:1", "sh", "-c", "cat /made; echo $A").ok().out == "made\nb\n"
    docker("import", str(tmp_path / "root.tar"), "t-imported:1").ok()
    assert docker("run", "--rm", "t-imported:1", "cat", "/in").ok().out == "copied in"
    docker("rmi", "t-committed:1", "t-imported:1").ok()


def test_networks_and_volumes(docker: Docker) -> None:
    docker("network", "create", "--subnet", "10.213.0.0/24", "--label", "a=b", "t-net").ok()
    docker("volume", "create", "--label", "a=b", "t-vol").ok()
    docker("run", "-d", "--name", "t-on", "-v", "t-vol:/v", "busybox", "sleep", "300").ok()
    docker("network", "connect", "--alias", "other", "--ip", "10.213.0.77", "t-net", "t-on").ok()
    assert "10.213.0.77" in docker("exec", "t-on", "ip", "addr").ok().out
    assert (
        docker("network", "inspect", "-f", "{{range .Containers}}{{.Name}} {{.IPv4Address}}{{end}}", "t-net").ok().line
        == "t-on 10.213.0.77/24"
    )
    assert docker.lines("network", "ls", "--filter", "label=a=b", "--format", "{{.Name}} {{.Driver}}") == ["t-net bridge"]
    docker("network", "disconnect", "t-net", "t-on").ok()
    docker("network", "rm", "t-net").ok()
    assert docker.lines("volume", "ls", "--filter", "label=a", "--format", "{{.Name}} {{.Driver}}") == ["t-vol local"]
    assert docker("volume", "inspect", "-f", "{{.Labels.a}} {{.Scope}}", "t-vol").ok().line == "b local"
    assert "volume is in use" in docker("volume", "rm", "t-vol").err
    docker("rm", "-f", "t-on").ok()
    docker("volume", "rm", "t-vol").ok()


def test_a_life_with_checks_limits_and_events(docker: Docker) -> None:
    began = json.loads(docker("info", "--format", "{{json .}}").ok().out)["SystemTime"]
    check = ["--health-cmd", "test -e /ready", "--health-interval", "1s", "--health-retries", "1", "--health-timeout", "5s"]
    docker("run", "-d", "--name", "t-life", *check, "busybox", "sh", "-c", "echo one; touch /ready; exec sleep 300").ok()
    await_(lambda: docker("inspect", "-f", "{{.State.Health.Status}}", "t-life").line == "healthy", "health", timeout=60)
    assert docker.lines("ps", "--filter", "health=healthy", "--format", "{{.Names}}") == ["t-life"]
    docker("update", "--memory", "200m", "--memory-swap", "-1", "--restart", "on-failure:2", "t-life").ok()
    shown = docker("inspect", "-f", "{{.HostConfig.Memory}} {{.HostConfig.RestartPolicy.Name}}", "t-life").ok().line
    assert shown == f"{200 << 20} on-failure"
    assert docker("logs", "--since", began, "t-life").ok().out == "one\n"
    assert docker("logs", "--until", began, "t-life").ok().out == ""
    docker("rename", "t-life", "t-renamed").ok()
    docker("stop", "-t", "0", "t-renamed").ok()
    # as process 1 it does not hear the first signal; in a machine it need not be that
    assert docker("wait", "t-renamed").ok().line == docker("inspect", "-f", "{{.State.ExitCode}}", "t-renamed").ok().line
    assert docker("inspect", "-f", "{{.State.ExitCode}}", "t-renamed").line in ("137", "143")
    now = json.loads(docker("info", "--format", "{{json .}}").ok().out)["SystemTime"]
    events = docker.lines("events", "--since", began, "--until", now, "--filter", "type=container", "--format", "{{json .}}")
    actions = [json.loads(line)["Action"].partition(":")[0] for line in events]
    assert [action for action in actions if action in ("create", "start", "rename", "die", "stop")] == [
        "create",
        "start",
        "rename",
        "die",
        "stop",
    ]
    assert {"health_status", "update"} <= set(actions)
    assert re.search(r"[0-9a-f]{64}", docker("container", "prune", "-f").ok().out)
    assert docker.lines("ps", "-aq") == []


def test_prunes_and_what_the_engine_is(docker: Docker) -> None:
    docker("create", "--name", "t-kept", "-l", "keep=1", "busybox", "true").ok()
    docker("create", "--name", "t-gone", "busybox", "true").ok()
    docker("container", "prune", "-f", "--filter", "label!=keep").ok()
    assert docker.lines("ps", "-a", "--format", "{{.Names}}") == ["t-kept"]
    docker("network", "create", "t-unused").ok()
    assert "t-unused" in docker("network", "prune", "-f").ok().out
    docker("volume", "create", "t-unused").ok()
    docker("volume", "rm", "t-unused").ok()
    docker("system", "prune", "-f", "--filter", "label=nothing").ok()
    assert docker.lines("ps", "-a", "--format", "{{.Names}}") == ["t-kept"]
    for line in (
        "Server Version: ",
        "Storage Driver: overlay2",
        "Runtimes: ",
        "Default Runtime: bothy",
        "Swarm: inactive",
        "OSType: linux",
    ):
        assert line in docker("info").ok().out
    assert "WARNING: daemon is not using the default seccomp profile" not in docker("info").out
    assert re.search(r"API version:\s+1\.\d+ \(minimum version 1\.24\)", docker("version").ok().out)
