"""What outlives the program: files, over every way to end, and a whole system's state in a machine as in a container."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.e2e.conftest import Walled
from tests.support.engine import await_, kill9

DEAF = "trap '' TERM; echo ready; while :; do sleep 0.1; done"


@pytest.mark.parametrize("end", [("kill",), ("stop", "-t", "0"), ("restart", "-t", "0"), ("kill", "-s", "KILL")], ids=" ".join)
def test_files_outlive_every_end(bothy: Walled, end: tuple[str, ...]) -> None:
    """A program that is killed has written what it wrote, also when the kernel that had it in its cache was the machine's own."""
    bothy("run", "-d", "--name", "s-files", "busybox", "sh", "-c", DEAF).ok()
    bothy("exec", "s-files", "sh", "-c", "head -c 3000000 /dev/urandom > /data; sha256sum /data > /sum; rm /etc/passwd").ok()
    bothy(*end, "s-files").ok()
    if end[0] != "restart":
        assert bothy.engine.inspect("s-files")["State"]["ExitCode"] == 137
        bothy("start", "s-files").ok()
    script = "sha256sum -c /sum; ls /etc/passwd 2>/dev/null; cat /etc/hostname; mount | grep -c ' / '"
    out = bothy("exec", "s-files", "sh", "-c", script).ok().out.splitlines()
    assert out == ["/data: OK", bothy.engine.inspect("s-files")["Id"][:12], "1"]
    bothy("rm", "-f", "s-files").ok()


def test_a_paused_one_that_is_killed_keeps_its_files(bothy: Walled) -> None:
    bothy("run", "-d", "--name", "s-paused", "busybox", "sh", "-c", DEAF).ok()
    bothy("exec", "s-paused", "sh", "-c", "echo kept > /file").ok()
    bothy("pause", "s-paused").ok()
    bothy("kill", "s-paused").ok()
    assert bothy.engine.inspect("s-paused")["State"]["ExitCode"] == 137
    bothy("start", "s-paused").ok()
    assert bothy("exec", "s-paused", "cat", "/file").ok().line == "kept"
    bothy("rm", "-f", "s-paused").ok()


def test_a_guest_that_hangs_is_killed_all_the_same(bothy: Walled) -> None:
    """Whoever stops the machine's processor behind our back does not keep `kill` from its work."""
    bothy("run", "-d", "--name", "s-hung", "busybox", "sleep", "300").ok()
    pid = bothy.engine.inspect("s-hung")["State"]["Pid"]
    os.kill(pid, 19)
    bothy("kill", "s-hung").ok()
    assert bothy.engine.inspect("s-hung")["State"]["ExitCode"] == 137
    await_(lambda: not Path(f"/proc/{pid}").exists(), "its process to go")
    bothy("rm", "s-hung").ok()


def test_qemu_that_dies_is_an_end_of_the_machine(bothy: Walled) -> None:
    bothy("run", "-d", "--name", "s-dead", "busybox", "sleep", "300").ok()
    kill9(bothy.engine.inspect("s-dead")["State"]["Pid"])
    assert bothy("wait", "s-dead").ok().line == "137"
    bothy("start", "s-dead").ok()
    assert bothy("exec", "s-dead", "echo", "again").ok().line == "again"
    bothy("rm", "-f", "s-dead").ok()


def test_a_debian_keeps_what_was_installed(bothy: Walled, debian: str) -> None:
    """Users, packages, links, owners, modes and times, over two stops and starts."""
    bothy("run", "-d", "--name", "s-deb", "--init", debian, "sleep", "1000").ok()
    script = """
        set -e
        useradd --create-home --uid 1234 alice
        echo secret > /home/alice/file; chown alice:alice /home/alice/file; chmod 600 /home/alice/file
        ln -s /home/alice/file /link; ln /home/alice/file /home/alice/other; touch -d 2001-02-03T04:05:06Z /home/alice/file
        mkdir -p /tmp/p/DEBIAN /tmp/p/opt/own; echo '#!/bin/sh' > /tmp/p/opt/own/tool; chmod 755 /tmp/p/opt/own/tool
        printf 'Package: own\\nVersion: 1\\nArchitecture: all\\nMaintainer: a <a@b>\\nDescription: own\\n' > /tmp/p/DEBIAN/control
        dpkg-deb --build /tmp/p /tmp/own.deb >/dev/null; dpkg -i /tmp/own.deb >/dev/null
        rm -r /usr/share/doc
    """
    bothy("exec", "s-deb", "bash", "-c", script).ok()
    for verb in (("stop", "-t", "2"), ("kill",)):
        bothy(*verb, "s-deb").ok()
        bothy("start", "s-deb").ok()
    look = "id -u alice; stat -c '%U %a %h %Y' /home/alice/file; cat /link; dpkg -s own | grep Status; ls /usr/share/doc; su alice -c 'cat ~/other'"
    done = bothy("exec", "s-deb", "bash", "-c", look)
    expected = ["1234", "alice 600 2 981173106", "secret", "Status: install ok installed", "secret"]
    assert done.out.splitlines() == expected, done.err
    bothy("rm", "-f", "s-deb").ok()


def test_volumes_outlive_the_workload(bothy: Walled) -> None:
    bothy("run", "--rm", "-v", "s-vol:/data", "busybox", "sh", "-c", "echo one > /data/file").ok()
    bothy("run", "--rm", "--vm", "-v", "s-vol:/data", "busybox", "sh", "-c", "echo two >> /data/file").ok()
    assert bothy("run", "--rm", "-v", "s-vol:/data:ro", "busybox", "cat", "/data/file").ok().out == "one\ntwo\n"
    done = bothy("run", "--rm", "-v", "s-vol:/data:ro", "busybox", "touch", "/data/x")
    assert (done.code, "Read-only" in done.err) == (1, True)
    assert bothy("volume", "rm", "s-vol").ok().line == "s-vol"
