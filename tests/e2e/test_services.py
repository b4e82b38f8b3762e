"""Real services from Debian's packages over both walls: a database, a cache, a web server, and their clients elsewhere."""

from __future__ import annotations

import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Walled
from tests.support.engine import TestEngine, await_

# Debian's package has made a cluster at its installation; its clients are trusted here, wherever they are.
POSTGRES = """\
echo 'host all all all trust' > /tmp/hba.conf
exec su postgres -c "exec /usr/lib/postgresql/15/bin/postgres -c config_file=/etc/postgresql/15/main/postgresql.conf \
    -c hba_file=/tmp/hba.conf -c listen_addresses='*' -c unix_socket_directories=/tmp -c ssl=off"
"""


@pytest.fixture(scope="module")
def services(engine: TestEngine) -> str:
    """An image with PostgreSQL, Redis and nginx, of Debian's packages."""
    engine(
        "image", "bootstrap", "debian:bookworm", "-t", "services", "--include", "postgresql,redis-server,nginx-light", timeout=600
    ).ok()
    return "services"


@pytest.fixture
def network(bothy: Walled) -> Iterator[str]:
    """A network of one's own."""
    bothy("network", "create", "t-services").ok()
    yield "t-services"
    bothy.engine("rm", "-f", "-v", *bothy.engine("ps", "-aq", "--filter", "network=t-services").ok().out.split())
    bothy("network", "rm", "t-services").ok()


@pytest.fixture
def warm(bothy: Walled, services: str) -> None:
    """The machine disk of the image and a template of that size, which later tests use too."""
    bothy("run", "--rm", "--memory", "512m", services, "true", timeout=300).ok()


def psql(engine: TestEngine, network: str, command: str, *flags: str) -> str:
    """What the database `t-db` answers to a client in a workload of its own, which finds it by name."""
    client = ("run", "--rm", *flags, "--memory", "512m", "--network", network, "services")
    return engine(*client, "psql", "-U", "postgres", "-h", "t-db", "-qtAc", command, timeout=180).ok().line


@pytest.mark.usefixtures("warm")
def test_a_database_keeps_what_it_was_told(bothy: Walled, services: str, network: str, tmp_path: Path) -> None:
    script = tmp_path / "postgres.sh"
    script.write_text(POSTGRES)
    bothy(
        "run", "-d", "--name", "t-db", "--memory", "512m", "--network", network,
        "--health-cmd", "pg_isready -q -h 127.0.0.1", "--health-interval", "500ms", "--health-timeout", "20s", "--health-retries", "60",
        "-v", f"{script}:/postgres.sh:ro", "-v", "t-data:/var/lib/postgresql", services, "sh", "/postgres.sh",
    ).ok()  # fmt: skip
    healthy(bothy, "t-db")
    engine = bothy.engine
    psql(engine, network, "create table numbers as select generate_series(1, 10000) as n")
    assert psql(engine, network, "select sum(n) from numbers") == "50005000"
    assert psql(engine, network, "select count(*) from numbers", "--vm") == "10000"
    bothy("restart", "-t", "30", "t-db", timeout=180).ok()
    healthy(bothy, "t-db")
    assert psql(engine, network, "select sum(n) from numbers") == "50005000"
    bothy("rm", "-f", "t-db").ok()
    bothy("volume", "rm", "t-data").ok()


@pytest.mark.usefixtures("warm")
def test_a_cache_by_a_published_port(bothy: Walled, services: str) -> None:
    command = ("redis-server", "--protected-mode", "no", "--bind", "0.0.0.0")
    bothy("run", "-d", "--name", "t-cache", "--memory", "512m", "-p", "127.0.0.1::6379", services, *command).ok()
    port = int(bothy("port", "t-cache", "6379").ok().line.rpartition(":")[2])
    await_(lambda: answer(port, b"PING\r\n") == b"+PONG\r\n", "the cache to answer", timeout=60)
    assert answer(port, b"SET key 41\r\n") == b"+OK\r\n"
    assert answer(port, b"INCR key\r\n") == b":42\r\n"
    assert bothy("exec", "t-cache", "redis-cli", "get", "key").ok().line == "42"
    bothy("stop", "t-cache", timeout=60).ok()
    assert bothy.engine.inspect("t-cache")["State"]["ExitCode"] == 0
    bothy("rm", "t-cache").ok()


@pytest.mark.usefixtures("warm")
def test_a_web_server(bothy: Walled, services: str, tmp_path: Path) -> None:
    pages = tmp_path / "pages"
    pages.mkdir()
    pages.chmod(0o755)  # nginx reads them as another user
    (pages / "index.html").write_text("hello from outside\n")
    bothy(
        "run", "-d", "--name", "t-web", "--memory", "512m", "-p", "127.0.0.1::80", "-v", f"{pages}:/var/www/html:ro",
        services, "nginx", "-g", "daemon off;",
    ).ok()  # fmt: skip
    port = int(bothy("port", "t-web", "80/tcp").ok().line.rpartition(":")[2])
    await_(lambda: page(port) == "hello from outside\n", "the page", timeout=60)
    (pages / "index.html").write_text("changed\n")
    assert page(port) == "changed\n"
    bothy("rm", "-f", "t-web").ok()


def healthy(bothy: Walled, name: str) -> None:
    await_(lambda: bothy.engine.inspect(name)["State"]["Health"]["Status"] == "healthy", f"{name} to be healthy", timeout=120)


def answer(port: int, request: bytes) -> bytes:
    """The first line that a server at the host's loopback answers; empty while there is none."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(request)
            return connection.makefile("rb").readline()
    except OSError:
        return b""


def page(port: int) -> str:
    """A web server's first page; empty while there is none."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as response:
            text: str = response.read().decode()
            return text
    except OSError:
        return ""
