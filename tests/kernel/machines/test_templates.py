"""Templates: made once, kept, made anew when an input changes, never half there."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bothy.errors import Broken
from bothy.machines import accelerator, bootfiles, saved, templates
from bothy.machines.accelerator import Accelerator
from bothy.machines.templates import MIB, Templates
from bothy.paths import Paths
from tests.support.machines import Machines, qemus

pytestmark = pytest.mark.qemu


@pytest.fixture
def own(paths: Paths, template: Path, tmp_path: Path) -> Paths:
    """A state root of its own, with the boot files but without templates."""
    made = Paths(tmp_path / "root", tmp_path / "run")
    shutil.copytree(paths.machines / "boot", made.machines / "boot", copy_function=shutil.copy2)
    shutil.copy2(paths.machines / "accelerator.json", made.machines / "accelerator.json")
    return made


def test_the_second_time_it_is_there(paths: Paths, template: Path) -> None:
    said: list[str] = []
    began = time.monotonic()
    assert Templates(paths).ensure(1, 128 * MIB, said.append) == template
    assert time.monotonic() - began < 0.5
    assert said == []
    assert saved.read(template).key == template.name == Templates(paths).key(1, 100 * MIB)
    (usage,) = Templates(paths).list()
    assert usage.current
    assert 0 < usage.size < 150 * MIB
    assert sorted(os.listdir(template)) == ["ram", "scratch", "state", saved.DESCRIPTION]


def test_an_input_that_changes_gives_another_key(paths: Paths, template: Path, own: Paths) -> None:
    assert Templates(own).key(1, 128 * MIB) == template.name
    assert Templates(own).key(2, 128 * MIB) != template.name
    current = bootfiles.current(own.machines / "boot")
    assert current is not None
    os.unlink(current.initramfs)
    assert bootfiles.current(own.machines / "boot") is None
    assert Templates(own).key(1, 128 * MIB) == template.name, "the same inputs give the same boot files"


def test_progress_is_told_and_a_maker_that_is_killed_leaves_nothing_in_the_way(own: Paths) -> None:
    program = (
        f"from pathlib import Path; from bothy.paths import Paths; from bothy.machines.templates import Templates;"
        f"Templates(Paths(Path({str(own.root)!r}), Path({str(own.run)!r}))).ensure(1, {128 * MIB}, lambda s: print(s, flush=True))"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as maker:
        assert maker.stdout is not None
        assert "making a machine template" in maker.stdout.readline()
        deadline = time.monotonic() + 20
        while not list(own.machines.glob("templates/.new-*/new/ram")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        qemu = [int(pid) for pid in Path(f"/proc/{maker.pid}/task/{maker.pid}/children").read_text().split()]
        maker.send_signal(signal.SIGKILL)
        maker.wait()
    assert qemu
    for pid in qemu:
        deadline = time.monotonic() + 10
        while os.path.exists(f"/proc/{pid}") and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
            assert time.monotonic() < deadline, "QEMU outlives its maker"
            time.sleep(0.02)
    assert Templates(own).list() == []
    said: list[str] = []
    made = Templates(own).ensure(1, 128 * MIB, said.append)
    assert len(said) == 2
    assert saved.read(made).nic == 2
    assert [name for name in os.listdir(made.parent) if name.startswith(".new")] == []


def test_more_processors_than_the_host_has(paths: Paths, machines: Machines) -> None:
    count = (os.cpu_count() or 1) + 2
    folder = Templates(paths).ensure(count, 128 * MIB)
    try:
        done = machines.shell("grep -c ^processor /proc/cpuinfo", template=str(folder), vcpus=count)
        assert done.text.strip() == str(count)
    finally:
        Templates(paths).remove(folder.name)


def test_a_kernel_that_does_not_boot_is_a_clear_error(own: Paths) -> None:
    current = bootfiles.current(own.machines / "boot")
    assert current is not None
    stamp = current.kernel.stat()
    with current.kernel.open("r+b") as image:  # the entry point points to nowhere, the rest is as it was
        image.seek(0x200000)
        image.write(b"\xf4" * 0x1000)
    assert current.kernel.stat().st_size == stamp.st_size
    limit = dict(templates._BOOT_LIMIT)
    templates._BOOT_LIMIT["tcg"] = 4
    try:
        with pytest.raises(Broken, match="did not come up"):
            Templates(own).ensure(1, 128 * MIB)
    finally:
        templates._BOOT_LIMIT.update(limit)
    assert qemus() == []
    assert Templates(own).list() == []
    assert [name for name in os.listdir(own.machines / "templates") if not name.startswith(".lock")] == []


def test_qemu_that_does_not_start_is_a_clear_error(own: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "qemu-system-x86_64"
    fake.write_text("#!/bin/sh\necho fake: no such machine >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    kept = accelerator.Accelerator("tcg", "for the test", 2_000_000)
    monkeypatch.setattr(accelerator, "probe", lambda paths: kept)
    with pytest.raises(Broken, match="fake: no such machine"):
        Templates(own).ensure(1, 128 * MIB)


def test_kvm_that_does_not_carry_a_machine_is_given_up(own: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    """The payload may run where a kernel does not: then the first machine decides."""
    accelerator.disprove(own, "to have a file")
    monkeypatch.setattr(accelerator, "_probe", lambda device, limit: Accelerator("kvm", "the payload ran"))
    os.unlink(own.machines / "accelerator.json")
    assert accelerator.probe(own).name == "kvm"
    monkeypatch.setitem(templates._BOOT_LIMIT, "kvm", 2.0)
    folder = Templates(own).ensure(1, 128 * MIB)
    assert saved.read(folder).hardware.accelerator == "tcg"
    found = accelerator.known(own)
    assert found is not None
    assert found.reason.startswith("a machine did not come up in KVM")


def test_the_accelerator_of_this_host_is_found_out(tmp_path: Path) -> None:
    paths = Paths(tmp_path / "root", tmp_path / "run")
    found = accelerator.probe(paths)
    assert found.name in ("kvm", "tcg")
    assert found.reason
    began = time.monotonic()
    assert accelerator.probe(paths) == found
    assert time.monotonic() - began < 0.1


def test_a_payload_that_never_ends_is_given_up_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerator.payload, "boot_sector", lambda: b"\xfa\xf4\xeb\xfd".ljust(510, b"\0") + b"\x55\xaa")  # cli; hlt
    real = subprocess.run

    def emulated(arguments: list[str], **options: object) -> object:
        words = [word.replace("accel=kvm", "accel=tcg") if word != "host" else "max" for word in arguments]
        return real(words, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(accelerator.subprocess, "run", emulated)
    qemu = shutil.which("qemu-system-x86_64")
    assert qemu is not None
    assert "did not finish in it within 1 s" in accelerator._run_payload(qemu, 1.0).reason
    monkeypatch.undo()
    monkeypatch.setattr(accelerator.subprocess, "run", emulated)
    assert accelerator._run_payload(qemu, 10.0).name == "kvm", "the payload itself is good"
    assert qemus() == []
