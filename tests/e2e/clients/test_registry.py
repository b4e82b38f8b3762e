"""Questions to a real registry (Debian's docker-registry): logging in, and what a name stands for."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import docker
import pytest

from tests.e2e.clients.conftest import socket_of
from tests.support.engine import TestEngine, await_

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
# user and secret, as `htpasswd -B` would write them
ACCOUNT = "user:$2b$05$XExyLcfeEhCKrz1XJXE9C.4ZYCdqJcMC/1iEHmyyI1KT3.jDIE4iO\n"
CONFIG = """\
version: 0.1
storage: {{filesystem: {{rootdirectory: {folder}/data}}}}
http: {{addr: "127.0.0.1:0"}}
auth: {{htpasswd: {{realm: test, path: {folder}/htpasswd}}}}
"""


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a registry on the loopback that wants a name and a password."""
    folder = tmp_path_factory.mktemp("registry")
    (folder / "htpasswd").write_text(ACCOUNT)
    (folder / "config.yml").write_text(CONFIG.format(folder=folder))
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(["docker-registry", "serve", str(folder / "config.yml")], stdout=output, stderr=output)
    await_(lambda: "listening on" in log.read_text(), "the registry")
    found = re.search(r"listening on (127\.0\.0\.1:\d+)", log.read_text())
    assert found
    yield found[1]
    process.terminate()
    process.wait()


@pytest.fixture
def client(settled: TestEngine) -> Iterator[docker.DockerClient]:
    settled("ps").ok()
    made = docker.DockerClient(base_url=socket_of(settled), version="auto")
    yield made
    made.close()


def test_logging_in(client: docker.DockerClient, registry: str) -> None:
    assert client.login("user", "secret", registry=registry)["Status"] == "Login Succeeded"
    with pytest.raises(docker.errors.APIError) as refused:
        client.login("user", "wrong", registry=registry, reauth=True)
    assert refused.value.status_code == 401
    assert "unauthorized: incorrect username or password" in str(refused.value)


def test_the_command_line_logs_in(settled: TestEngine, registry: str, tmp_path: Path) -> None:
    command = [
        "/usr/bin/docker",
        "--config",
        str(tmp_path),
        "-H",
        socket_of(settled),
        "login",
        "-u",
        "user",
        "--password-stdin",
        registry,
    ]
    done = subprocess.run(command, input=b"secret", capture_output=True, check=False)
    assert b"Login Succeeded" in done.stdout, done.stderr
    done = subprocess.run(command, input=b"wrong", capture_output=True, check=False)
    assert done.returncode
    assert b"unauthorized" in done.stderr


def test_what_a_name_stands_for(client: docker.DockerClient, settled: TestEngine, registry: str, tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    settled("save", "-o", str(archive), "busybox").ok()
    push = ["skopeo", "copy", "-q", "--dest-tls-verify=false", "--dest-creds=user:secret", f"docker-archive:{archive}"]
    subprocess.run([*push, f"docker://{registry}/team/busybox:1"], check=True, capture_output=True)
    wanted = {"username": "user", "password": "secret"}
    found = client.api.inspect_distribution(f"{registry}/team/busybox:1", auth_config=wanted)
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", found["Descriptor"]["digest"])
    assert found["Descriptor"]["size"] > 0
    assert [(p["os"], p["architecture"]) for p in found["Platforms"]] == [("linux", "amd64")]
    by_digest = client.api.inspect_distribution(f"{registry}/team/busybox@{found['Descriptor']['digest']}", auth_config=wanted)
    assert by_digest["Descriptor"]["digest"] == found["Descriptor"]["digest"]
    for name, auth, status in (
        (f"{registry}/team/busybox:1", {}, 401), (f"{registry}/team/busybox:none", wanted, 404), (f"{registry}/UPPER", wanted, 400),
    ):  # fmt: skip
        with pytest.raises(docker.errors.APIError) as refused:
            client.api.inspect_distribution(name, auth_config=auth)
        assert refused.value.status_code == status


def test_a_registry_that_is_not_there(client: docker.DockerClient) -> None:
    with pytest.raises(docker.errors.APIError) as refused:
        client.login("user", "secret", registry="127.0.0.1:1")
    assert refused.value.status_code == 503
    assert "127.0.0.1:1" in str(refused.value)


class _Index(BaseHTTPRequestHandler):
    """What an index answers to a search, in the shape that Docker's has (`docker search` reads it)."""

    def do_GET(self) -> None:
        place = urlsplit(self.path)
        term = parse_qs(place.query).get("q", [""])[0]
        repositories = [
            {"name": "team/web", "description": "A web server", "star_count": 12, "is_official": False, "is_automated": False},
            {"name": "web", "description": "The web server", "star_count": 900, "is_official": True, "is_automated": False},
        ]
        found = [each for each in repositories if term in str(each["name"])]
        body = json.dumps({"num_results": len(found), "query": term, "results": found}).encode()
        self.send_response(200 if place.path == "/v1/search" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def index() -> Iterator[str]:
    """The address of an index on the loopback; there is no package that has a real one."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Index) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_searching(client: docker.DockerClient, settled: TestEngine, index: str, tmp_path: Path) -> None:
    assert [each["name"] for each in client.api.search(f"{index}/web")] == ["team/web", "web"]
    assert client.api.search(f"{index}/nothing") == []
    command = [
        "/usr/bin/docker",
        "--config",
        str(tmp_path),
        "-H",
        socket_of(settled),
        "search",
        "--format",
        "{{.Name}} {{.StarCount}}",
    ]
    for words, seen in (
        (["--filter", "is-official=true"], "web 900\n"), (["--filter", "stars=10", "--limit", "1"], "team/web 12\n"),
    ):  # fmt: skip
        done = subprocess.run([*command, *words, f"{index}/web"], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, seen), done.stderr


def test_a_registry_that_can_not_search(client: docker.DockerClient, registry: str) -> None:
    with pytest.raises(docker.errors.NotFound, match="/v1/search"):
        client.api.search(f"{registry}/web")
