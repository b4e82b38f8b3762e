"""Two clones of one template: different where they must be, separate from each other and from the host."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from bothy.containers.cgroups.hierarchies import discover
from bothy.errors import StageError
from bothy.linux import links
from bothy.linux.links import Attachment
from bothy.machines import jail, launch, wire
from bothy.machines.model import Share
from tests.support.machines import INTERFACE, Machines, taps

pytestmark = pytest.mark.qemu


def test_siblings_differ_and_know_the_time(machines: Machines) -> None:
    script = "hostname; cat /etc/machine-id /etc/hosts; cat /proc/sys/kernel/random/uuid; od -An -N16 -tx1 /dev/urandom; date +%s"
    one, other = (machines.shell(script).text.splitlines() for _ in range(2))
    assert one[2] == other[2] == "127.0.0.1 localhost"
    for line in (0, 1, 3, 4):
        assert one[line] != other[line]
    assert abs(int(other[5]) - time.time()) < 2


def test_qemu_is_born_in_its_group_of_version_2(machines: Machines, tmp_path: Path) -> None:
    group = Path(discover(Path("/proc/self/mountinfo").read_text()).v2, f"bothy-test-{os.getpid()}")
    group.mkdir()
    try:
        fd = os.open(group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        clone = launch.launch(machines.plan(), str(tmp_path), cgroup=fd)
        os.close(fd)
        inside = (group / "cgroup.procs").read_text().split()
        os.kill(clone.pid, signal.SIGKILL)
        os.waitpid(clone.pid, 0)
        clone.close()
        clone.release()
        assert inside == [str(clone.pid)]
    finally:
        group.rmdir()


def test_the_disk_outlives_the_machine_and_what_is_removed_is_given_back(machines: Machines) -> None:
    plan = machines.plan(
        "sh", "-c", "echo kept > /kept; head -c 30000000 /dev/urandom > /big; rm /etc/hostname; echo mine > /etc/hosts"
    )
    assert machines.machine(plan).run().code == 0
    disk = Path(plan.scratch.path)
    full = disk.stat().st_blocks * 512
    assert full > 30_000_000
    again = replace(
        plan,
        spec=replace(
            plan.spec,
            process=replace(plan.spec.process, args=["sh", "-c", "cat /kept /etc/hosts /etc/hostname; rm /big; sync; fstrim /"]),
        ),
    )
    done = machines.machine(again).run()
    assert done.text == f"kept\n127.0.0.1 localhost\n{plan.spec.hostname}\n", "files of the engine are its own in every life"
    assert disk.stat().st_blocks * 512 < full - 25_000_000


def test_the_disk_is_whole_after_a_kill(machines: Machines) -> None:
    plan = machines.plan("sh", "-c", "echo safe > /safe; sync; echo synced; while true; do echo x >> /more; done")
    machine = machines.machine(plan)
    machine.start()
    machine.until(lambda: "synced" in machine.main.text)
    machine.wall.kill()
    machine.until(lambda: machine.main.over)
    machine.close()
    again = replace(plan, spec=replace(plan.spec, process=replace(plan.spec.process, args=["cat", "/safe"])))
    assert machines.machine(again).run().text == "safe\n"


def test_shares_of_folders_and_files(machines: Machines, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "file").write_text("of the host\n")
    shares = [
        Share(str(data), "/a/b"),
        Share(str(data), "/ro", readonly=True),
        Share(str(data / "file"), "/etc/one", readonly=True),
    ]
    script = """cat /a/b/file /etc/one; echo new > /a/b/new; mkdir /a/b/d; rm /a/b/file
                echo x > /ro/x || echo refused; echo x > /etc/one || echo refused; ls /ro"""
    done = machines.shell(script, shares=shares)
    assert done.text == "of the host\nof the host\nrefused\nrefused\nd\nnew\n"
    assert (data / "new").read_text() == "new\n"
    assert not (data / "file").exists()


def test_a_disk_of_another_layout_is_mounted_anew(machines: Machines, tmp_path: Path) -> None:
    for name in ("plain", "nested/image"):
        root = tmp_path / name
        (root / "bin").mkdir(parents=True)
        (root / "bin/busybox").write_bytes(Path("/bin/busybox").read_bytes())
        (root / "bin/busybox").chmod(0o755)
        (root / "mark").write_text(name)
        root.chmod(0o750)
        disk = tmp_path / f"{root.name}.erofs"
        subprocess.run(["mkfs.erofs", "--quiet", disk, tmp_path / name.partition("/")[0]], check=True, capture_output=True)
        plan = machines.plan(
            "/bin/busybox", "sh", "-c", "cat /mark /etc/hosts; stat -c %a /; echo kept > /new; busybox mount | head -1"
        )
        plan = replace(plan, root=replace(plan.root, path=str(disk)))
        done = machines.machine(plan).run()
        assert done.text.startswith(f"{name}127.0.0.1 localhost\n750\noverlay on / type overlay")
        again = replace(plan, spec=replace(plan.spec, process=replace(plan.spec.process, args=["/bin/busybox", "cat", "/new"])))
        assert machines.machine(again).run().text == "kept\n"


def test_a_share_that_is_not_there(machines: Machines) -> None:
    error = machines.run("true", shares=[Share("/nosuch/folder", "/data")]).error
    assert isinstance(error, StageError)
    assert (error.stage, error.path) == ("share", "/nosuch/folder")


def test_no_network_is_no_card(machines: Machines) -> None:
    assert machines.shell("ls /sys/class/net; ip addr show lo | grep -c 127.0.0.1").text.split() == ["lo", "1"]


def test_a_machine_on_a_bridge(machines: Machines) -> None:
    bridge, tap = "mt-bridge", "mt-tap0"
    links.create_bridge(bridge)
    try:
        links.add_address(bridge, "172.31.99.1/24")
        plan = machines.plan("sh", "-c", "ip addr show eth0; ip route; ping -c 1 -w 5 172.31.99.1 && echo reached")
        done = machines.machine(replace(plan, attachments=[Attachment(INTERFACE, tap, bridge)])).run()
        assert f"link/ether {INTERFACE.mac}" in done.text
        assert "inet 172.31.99.2/24" in done.text
        assert "default via 172.31.99.1 dev eth0" in done.text
        assert done.text.endswith("reached\n")
    finally:
        links.delete_link(bridge)
    assert tap not in taps()


def test_clones_do_not_touch_the_template_and_give_memory_back(machines: Machines, template: Path) -> None:
    def digest() -> str:
        with (template / "ram").open("rb") as ram:
            return hashlib.file_digest(ram, "sha256").hexdigest()

    before = digest()
    script = "dd if=/dev/zero of=/dev/shm/x bs=1M count=40 2>/dev/null; echo full; sleep 1; rm /dev/shm/x; echo empty; sleep 60"
    machine = machines.machine(machines.plan("sh", "-c", script))
    machine.start()
    machine.until(lambda: "full" in machine.main.text)
    full = private(machine.qemu)
    machine.until(lambda: "empty" in machine.main.text)
    deadline = time.monotonic() + 40
    machine.until(lambda: private(machine.qemu) < full - (20 << 10) or time.monotonic() > deadline)
    assert private(machine.qemu) < full - (20 << 10), "free page reporting gives nothing back"
    machine.close()
    assert digest() == before
    assert machines.shell("echo fine").text == "fine\n"


def private(pid: int) -> int:
    """KiB that a process has for itself."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in rollup if line.startswith("Private_Dirty"))


def test_an_idle_machine_is_small(machines: Machines) -> None:
    machine = machines.machine(machines.plan("sleep", "60"))
    machine.start()
    began = time.monotonic()
    machine.until(lambda: time.monotonic() > began + 3)
    rollup = Path(f"/proc/{machine.qemu}/smaps_rollup").read_text().splitlines()
    pss = next(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))
    assert pss < 110 << 10


def test_qemu_has_no_rights_and_sees_nothing(machines: Machines) -> None:
    machine = machines.machine(machines.plan("sleep", "60", name="abcdef0123"))
    machine.start()
    pid = machine.qemu
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
    assert status["Uid"].split() == [str(jail.owner("abcdef0123"))] * 4
    assert (status["CapEff"], status["CapPrm"], status["CapBnd"]) == ("0" * 16,) * 3
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert sorted(os.listdir(f"/proc/{pid}/root")) == sorted({"dev", "etc", "exports", "machine", "proc", "usr"} | system_links())
    assert os.listdir(f"/proc/{pid}/root/etc") == ["ld.so.cache"]
    assert os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net")
    opened = {os.readlink(f"/proc/{pid}/fd/{fd}"): fd for fd in os.listdir(f"/proc/{pid}/fd")}
    flags = Path(f"/proc/{pid}/fdinfo/{opened[str(machines.template / 'ram')]}").read_text()
    assert int(flags.split("flags:\t")[1].split()[0], 8) & os.O_ACCMODE == os.O_RDONLY, "the template can be written to"


def system_links() -> set[str]:
    return {name for name in ("lib", "lib64", "bin", "sbin", "lib32", "libx32") if os.path.lexists(f"/{name}")}


def test_with_shares_qemu_is_root_with_few_rights(machines: Machines, tmp_path: Path) -> None:
    machine = machines.machine(machines.plan("sleep", "60", shares=[Share(str(tmp_path), "/data")]))
    machine.start()
    status = Path(f"/proc/{machine.qemu}/status").read_text()
    assert "CapEff:\t000000000000001f\n" in status


def test_qemu_that_dies_is_told_with_its_words(machines: Machines) -> None:
    machine = machines.machine(machines.plan("sleep", "60"))
    machine.start()
    os.kill(machine.qemu, signal.SIGSEGV)
    machine.until(lambda: machine.main.over)
    assert machine.main.code == 137
    assert "QEMU ended with signal 11" in machine.wall.error


def test_a_template_that_is_gone_or_spoilt(machines: Machines, tmp_path: Path) -> None:
    assert "no template" in str(machines.run("true", template=str(tmp_path)).error)
    spoilt = tmp_path / "spoilt"
    spoilt.mkdir()
    for name in ("ram", "scratch", "template.json"):
        os.link(machines.template / name, spoilt / name)
    (spoilt / "state").write_bytes(b"no state")
    error = machines.run("true", template=str(spoilt)).error
    assert isinstance(error, StageError)
    assert error.stage == "machine"


@pytest.mark.parametrize(
    "evil",
    [b"\xff" * 64, wire.encode(wire.DATA, wire.stream_of(0, 1), bytes(wire.WINDOW)) * 2, wire.encode(wire.DATA, 0, b"x")],
    ids=["no frame", "more than its window", "output on stdin"],
)
def test_a_guest_that_does_not_keep_to_the_protocol_is_ended(machines: Machines, evil: bytes) -> None:
    machine = machines.machine(machines.plan("sleep", "60"))
    process = machine.start().process
    assert process is not None
    process.hold(held=True)
    machine.wall._decoder = Takeover(evil)  # type: ignore[assignment]
    answers: list[object] = []
    machine.wall.stats(answers.append)
    machine.until(lambda: machine.main.over)
    assert machine.main.code == 137
    assert "does not keep to" in machine.wall.error
    assert isinstance(answers[0], StageError)


class Takeover:
    """A decoder that finds an attacker's bytes in whatever comes."""

    def __init__(self, evil: bytes) -> None:
        self._evil = evil

    def feed(self, _data: bytes) -> list[wire.Frame]:
        return wire.Decoder().feed(self._evil)
