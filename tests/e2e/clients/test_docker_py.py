"""docker-py from PyPI, as its users use it, over both walls."""

from __future__ import annotations

import io
import tarfile
import threading
from typing import Any

import docker
import pytest

from tests.e2e.clients.conftest import Client
from tests.support.engine import await_

# docker-py leaves sockets of hijacked connections to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def test_run_gives_the_output(client: Client) -> None:
    assert client.containers.run("busybox", ["echo", "hi"], remove=True, **client.walled) == b"hi\n"
    with pytest.raises(docker.errors.ContainerError) as failed:
        client.containers.run("busybox", ["sh", "-c", "echo oh >&2; exit 3"], remove=True, **client.walled)
    assert failed.value.exit_status == 3
    assert failed.value.stderr == b"oh\n"
    with pytest.raises(docker.errors.ImageNotFound):
        client.containers.create("no-such-image:1")
    assert client.containers.list(all=True) == []


def test_a_life(client: Client) -> None:
    container = client.containers.run(
        "busybox", ["sh", "-c", "echo out; echo err >&2; cat"], detach=True, stdin_open=True, name="t-py", **client.walled
    )
    container.reload()
    assert container.status == "running"
    stream = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    stream._sock.sendall(b"typed\n")
    await_(lambda: b"typed\n" in container.logs(), "what was typed to come back", timeout=60)
    stream.close()
    assert container.logs(stdout=True, stderr=False) == b"out\ntyped\n"
    assert container.logs(stdout=False, stderr=True) == b"err\n"
    assert container.logs(tail=1, timestamps=True).endswith(b"Z typed\n")
    container.pause()
    container.reload()
    assert container.status == "paused"
    container.unpause()
    container.rename("t-py-2")
    assert client.containers.get("t-py-2").id == container.id
    assert container.top()["Titles"][1] == "PID"
    container.stop(timeout=0)
    assert container.wait()["StatusCode"] in (137, 143)  # the program is PID 1, which TERM passes by, in a container only
    container.start()
    container.kill()
    container.remove(v=True)
    with pytest.raises(docker.errors.NotFound):
        client.containers.get("t-py-2")


def test_exec(client: Client) -> None:
    container = client.containers.run("busybox", ["sleep", "300"], detach=True, **client.walled)
    assert container.exec_run("echo one") == (0, b"one\n")
    assert container.exec_run(["sh", "-c", "echo o; echo e >&2; exit 3"], demux=True) == (3, (b"o\n", b"e\n"))
    assert (
        container.exec_run(["sh", "-c", "echo $WHO $(id -u) $(pwd)"], environment={"WHO": "me"}, user="7", workdir="/tmp").output
        == b"me 7 /tmp\n"
    )
    _, chunks = container.exec_run(["sh", "-c", "echo 1; echo 2"], stream=True)
    assert b"".join(chunks) == b"1\n2\n"
    api = client.api
    exec_id = api.exec_create(container.id, ["cat"], stdin=True)["Id"]
    stream = api.exec_start(exec_id, socket=True)
    stream._sock.sendall(b"through\n")
    stream._sock.shutdown(1)
    read = bytearray()
    while data := stream._sock.recv(4096):
        read += data
    stream.close()
    assert bytes(read) == b"\x01\0\0\0\0\0\0\x08through\n"
    assert api.exec_inspect(exec_id)["ExitCode"] == 0
    container.remove(force=True)


def test_files_go_in_and_out(client: Client) -> None:
    container = client.containers.run("busybox", ["sleep", "300"], detach=True, **client.walled)
    assert container.put_archive("/tmp", archive(**{"f.txt": b"abc"}))
    assert container.exec_run("cat /tmp/f.txt").output == b"abc"
    bits, stat = container.get_archive("/tmp/f.txt")
    assert (stat["name"], stat["size"], stat["mode"]) == ("f.txt", 3, 0o644)
    with tarfile.open(fileobj=io.BytesIO(b"".join(bits))) as tar:
        member = tar.extractfile("f.txt")
        assert member
        assert member.read() == b"abc"
    with pytest.raises(docker.errors.NotFound):
        container.get_archive("/no/such/file")
    assert {"Path": "/tmp/f.txt", "Kind": 1} in container.diff()
    container.remove(force=True)


def test_commit_and_export(client: Client) -> None:
    container = client.containers.run("busybox", ["sh", "-c", "echo kept > /kept"], detach=True, **client.walled)
    container.wait()
    image = container.commit("t-commit", "v1", changes='CMD ["cat", "/kept"]')
    assert image.tags == ["t-commit:v1"]
    assert client.containers.run("t-commit:v1", remove=True, **client.walled) == b"kept\n"
    with tarfile.open(fileobj=io.BytesIO(b"".join(container.export()))) as tar:
        assert "kept" in tar.getnames()
    container.remove()
    client.images.remove("t-commit:v1")


def test_logs_follow_until_the_end(client: Client) -> None:
    script = "for i in 1 2 3 4 5; do echo line-$i; done"
    container = client.containers.run("busybox", ["sh", "-c", script], detach=True, **client.walled)
    assert b"".join(container.logs(stream=True, follow=True)) == b"".join(b"line-%d\n" % n for n in range(1, 6))
    container.remove()


def test_stats(client: Client) -> None:
    container = client.containers.run("busybox", ["sleep", "300"], detach=True, mem_limit="256m", **client.walled)
    once = container.stats(stream=False)
    assert once["memory_stats"]["usage"] > 0
    assert once["cpu_stats"]["cpu_usage"]["total_usage"] >= once["precpu_stats"]["cpu_usage"]["total_usage"]
    assert "eth0" in once["networks"]
    stream = container.stats(decode=True)
    assert [next(stream)["id"], next(stream)["id"]] == [container.id] * 2
    container.remove(force=True)
    stream.close()


def test_events(client: Client) -> None:
    seen: list[dict[str, Any]] = []
    stream = client.events(decode=True, filters={"type": "container", "label": "t-events"})

    def listen() -> None:
        for event in stream:
            seen.append(event)
            if event["Action"] == "destroy":
                return

    listener = threading.Thread(target=listen)
    listener.start()
    client.containers.run("busybox", ["true"], remove=True, labels=["t-events"], **client.walled)
    listener.join(60)
    actions = [event["Action"] for event in seen]
    stream.close()
    assert [a for a in actions if a in ("create", "start", "die", "destroy")] == ["create", "start", "die", "destroy"]
    assert all(event["status"] == event["Action"] and event["from"] == "busybox" for event in seen)


def test_networks(client: Client) -> None:
    pool = docker.types.IPAMPool(subnet="10.77.0.0/24", gateway="10.77.0.254")
    network = client.networks.create("t-net", labels={"a": "b"}, ipam=docker.types.IPAMConfig(pool_configs=[pool]))
    container = client.containers.run("busybox", ["sleep", "300"], detach=True, network="t-net", name="t-found", **client.walled)
    network.reload()
    assert network.attrs["Labels"] == {"a": "b"}
    assert [entry["Name"] for entry in network.attrs["Containers"].values()] == ["t-found"]
    answer = client.containers.run("busybox", ["nslookup", "t-found"], remove=True, network="t-net", **client.walled)
    assert b"10.77.0.1" in answer
    network.disconnect(container)
    network.connect(container, aliases=["other"], ipv4_address="10.77.0.9")
    answer = client.containers.run("busybox", ["nslookup", "other"], remove=True, network="t-net", **client.walled)
    assert b"10.77.0.9" in answer
    with pytest.raises(docker.errors.APIError) as refused:
        network.remove()
    assert refused.value.status_code == 403
    container.remove(force=True)
    network.remove()


def test_volumes(client: Client) -> None:
    volume = client.volumes.create("t-vol", labels={"k": "v"})
    client.containers.run(
        "busybox",
        ["sh", "-c", "echo kept > /data/f"],
        remove=True,
        volumes={"t-vol": {"bind": "/data", "mode": "rw"}},
        **client.walled,
    )
    mount = docker.types.Mount("/data", "t-vol", read_only=True)
    assert client.containers.run("busybox", ["cat", "/data/f"], remove=True, mounts=[mount], **client.walled) == b"kept\n"
    assert [v.name for v in client.volumes.list(filters={"label": "k=v"})] == ["t-vol"]
    assert client.volumes.prune(filters={"label": "other"})["VolumesDeleted"] == []
    volume.remove()


def test_health(client: Client) -> None:
    check = {"test": ["CMD", "true"], "interval": 10**9, "timeout": 30 * 10**9}
    container = client.containers.run("busybox", ["sleep", "300"], detach=True, healthcheck=check, **client.walled)

    def healthy() -> bool:
        container.reload()
        return bool(container.health == "healthy")

    await_(healthy, "it to be healthy", timeout=60)
    container.remove(force=True)


def test_ports(client: Client) -> None:
    container = client.containers.run(
        "busybox", ["httpd", "-f"], detach=True, ports={"80/tcp": ("127.0.0.1", None), "81/udp": None}, **client.walled
    )
    container.reload()
    bound = container.ports["80/tcp"]
    assert [entry["HostIp"] for entry in bound] == ["127.0.0.1"]
    assert int(bound[0]["HostPort"]) > 0
    assert container.ports["81/udp"]
    container.remove(force=True)


def test_system(client: Client) -> None:
    assert client.ping()
    assert client.info()["Swarm"]["LocalNodeState"] == "inactive"
    assert client.info()["OSType"] == "linux"
    assert {"Images", "Containers", "Volumes", "BuildCache"} <= set(client.df())
    assert client.plugins.list() == []
    for noun in (client.services, client.nodes, client.secrets, client.configs):
        with pytest.raises(docker.errors.APIError) as refused:
            noun.list()
        assert refused.value.status_code == 503
    client.images.get("busybox").tag("t-tagged", "1")
    assert "t-tagged:1" in client.images.get("busybox").tags
    client.images.remove("t-tagged:1")


def archive(**files: bytes) -> bytes:
    """A tar with these files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()
