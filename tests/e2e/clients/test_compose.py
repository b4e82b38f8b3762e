"""Debian's docker-compose (1.29): projects with networks, names, volumes and health, and one whose database is a machine."""

from __future__ import annotations

import os
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.clients.conftest import socket_of
from tests.support.engine import Result, TestEngine

# The one line that puts the database behind the other wall is `runtime: vm`.
PROJECT = """\
version: "2.4"
services:
  database:
    image: busybox
    {runtime}
    mem_limit: 256m
    command: ["sh", "-c", "echo from-the-database > /data/index.html; exec httpd -f -p 80 -h /data"]
    healthcheck: {{test: ["CMD", "wget", "-qO", "/dev/null", "http://127.0.0.1/"], interval: 500ms, timeout: 30s, retries: 40}}
    volumes: ["data:/data"]
    networks: {{back: {{aliases: [db]}}}}
    stop_signal: SIGKILL
  web:
    image: busybox
    depends_on: {{database: {{condition: service_healthy}}}}
    command: ["sh", "-c", "wget -qO /tmp/index.html http://db/ && cat /proc/version >> /tmp/index.html; exec httpd -f -p 80 -h /tmp"]
    ports: ["127.0.0.1::80"]
    environment: {{WHO: web}}
    networks: [front, back]
    stop_signal: SIGKILL
  alone:
    image: busybox
    command: ["sleep", "300"]
    networks: [front]
    stop_signal: SIGKILL
networks:
  front: {{}}
  back: {{internal: true}}
volumes: {{data: {{}}}}
"""


class Project:
    """A folder with a docker-compose.yml, and the program that reads it."""

    def __init__(self, engine: TestEngine, folder: Path) -> None:
        self.engine, self.folder = engine, folder

    def __call__(self, *args: str) -> Result:
        env = {**os.environ, "DOCKER_HOST": socket_of(self.engine), "COMPOSE_HTTP_TIMEOUT": "120"}
        done = subprocess.run(
            ["docker-compose", "--no-ansi", *args], cwd=self.folder, env=env, capture_output=True, stdin=subprocess.DEVNULL, check=False,
            timeout=300,
        )  # fmt: skip
        return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture(params=["", "runtime: vm"], ids=["containers", "database-in-a-machine"])
def project(request: pytest.FixtureRequest, settled: TestEngine, tmp_path: Path) -> Iterator[Project]:
    if request.param:
        request.getfixturevalue("machines")
    settled("ps").ok()
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "docker-compose.yml").write_text(PROJECT.format(runtime=request.param))
    made = Project(settled, folder)
    yield made
    made("down", "-v", "-t", "0")


def test_a_project_comes_up_works_and_goes(project: Project) -> None:
    project("up", "-d").ok()
    port = project("port", "web", "80").ok().line.rpartition(":")[2]
    page = get(port).splitlines()
    assert page[0] == "from-the-database"
    assert "Up (healthy)" in project("ps").ok().out
    assert project("exec", "-T", "web", "sh", "-c", "echo $WHO").ok().line == "web"
    assert project("exec", "-T", "alone", "wget", "-qO-", "http://web/").ok().out.startswith("from-the-database")
    assert project("exec", "-T", "alone", "wget", "-qO-", "-T", "2", "http://database/").code
    assert "httpd" in project("top", "web").ok().out
    kernels = {name: project("exec", "-T", name, "uname", "-r").ok().line for name in ("web", "database")}
    machine = "runtime: vm" in (project.folder / "docker-compose.yml").read_text()
    assert (kernels["web"] != kernels["database"]) == machine
    project("restart", "-t", "1", "web").ok()
    project("stop", "-t", "1").ok()
    project("start").ok()
    assert "done" in project("down").ok().err
    assert project.engine("volume", "ls", "-q", "--filter", "name=shop_data").ok().line == "shop_data"
    project("up", "-d", "--scale", "alone=3").ok()
    assert len(project("ps", "-q", "alone").ok().out.split()) == 3
    project("down", "-v").ok()
    assert project.engine("network", "ls", "-q", "--filter", "type=custom").ok().out == ""
    assert project.engine("volume", "ls", "-q").ok().out == ""


def test_a_changed_service_is_made_anew_and_keeps_its_volume(project: Project) -> None:
    project("up", "-d").ok()
    before = project("ps", "-q", "database").ok().line
    project("exec", "-T", "database", "sh", "-c", "echo kept > /data/kept").ok()
    file = project.folder / "docker-compose.yml"
    file.write_text(file.read_text().replace("mem_limit: 256m", "mem_limit: 256m\n    labels: {changed: 'yes'}"))
    project("up", "-d").ok()
    after = project("ps", "-q", "database").ok().line
    assert after != before
    assert project("exec", "-T", "database", "cat", "/data/kept").ok().line == "kept"
    assert project.engine.inspect(after)["Config"]["Labels"]["changed"] == "yes"
    project("down", "-v").ok()


def test_output_of_up_in_the_foreground(project: Project) -> None:
    file = project.folder / "docker-compose.yml"
    file.write_text('version: "2.4"\nservices: {one: {image: busybox, command: ["echo", "out of one"]}}\n')
    assert "out of one" in project("up").ok().out
    assert project("run", "--rm", "one", "echo", "run in one").ok().line == "run in one"
    project("down", "-v").ok()


def get(port: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as response:
        text: str = response.read().decode()
        return text
