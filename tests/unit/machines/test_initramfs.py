from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from bothy.errors import Broken, Unsupported
from bothy.machines import initramfs
from bothy.machines.initramfs import Archive
from bothy.machines.kernel import MODULES, Kernel


def test_the_archive_is_what_cpio_reads(tmp_path: Path) -> None:
    archive = Archive()
    archive.file("usr/bin/tool", b"#!/bin/sh\n", 0o755)
    archive.link("init", "usr/bin/tool")
    archive.folder("proc")
    data = archive.pack()
    assert len(data) % 512 == 0
    subprocess.run(["busybox", "cpio", "-idm"], input=data, cwd=tmp_path, check=True, stderr=subprocess.DEVNULL)
    assert (tmp_path / "init").read_bytes() == b"#!/bin/sh\n"
    assert (tmp_path / "usr/bin/tool").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "proc").is_dir()


def test_the_archive_does_not_depend_on_the_order_of_entries() -> None:
    one, other = Archive(), Archive()
    for name in ("a/x", "b", "c/d/e"):
        one.file(name, name.encode())
    for name in ("c/d/e", "b", "a/x"):
        other.file(name, name.encode())
    assert one.pack() == other.pack()
    names = ["a", "a/x", "b", "c", "c/d", "c/d/e"]
    assert sorted(one.entries) == names


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    for name in MODULES:
        path = tmp_path / "modules/kernel" / f"{name}.ko"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\0depends=\0" + name.encode())
    (tmp_path / "vmlinuz").write_bytes(b"")
    return Kernel("6", tmp_path / "vmlinuz", tmp_path / "modules")


def test_it_holds_the_agent_and_only_what_that_imports(kernel: Kernel, tmp_path: Path) -> None:
    built = initramfs.build(kernel)
    subprocess.run(["busybox", "cpio", "-idm"], input=built.data, cwd=tmp_path, check=False, stderr=subprocess.DEVNULL)
    library = next((tmp_path / "usr/lib").glob("python3.*"))
    assert (library / "bothy/guest/agent.pyc").exists()
    assert (library / "encodings/utf_8.pyc").exists()
    assert not list(library.rglob("*.py"))
    for absent in ("asyncio", "email", "http", "unittest", "sqlite3", "bothy/engine", "bothy/api"):
        assert not (library / absent).exists(), absent
    modules = sorted(path.name for path in (tmp_path / "lib/modules").iterdir())
    assert modules[0] == f"00-{MODULES[0]}.ko"
    assert len(modules) == len(MODULES)
    assert len(built.data) < 24 << 20
    assert Path(initramfs.interpreter()) in built.inputs
    assert any(path.name == "agent.py" for path in built.inputs)


def test_the_interpreter_in_it_runs_the_agents_imports(kernel: Kernel, tmp_path: Path) -> None:
    built = initramfs.build(kernel)
    subprocess.run(["busybox", "cpio", "-idm"], input=built.data, cwd=tmp_path, check=False, stderr=subprocess.DEVNULL)
    library = next((tmp_path / "usr/lib").glob("python3.*"))
    program = f"import sys; sys.path[:] = [{str(library)!r}]; import bothy.guest.agent as a; print(a.__file__)"
    done = subprocess.run([sys.executable, "-ISBc", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{library}/bothy/guest/agent.pyc"


def test_the_inputs_are_the_same_every_time(kernel: Kernel) -> None:
    def digest() -> str:
        return hashlib.sha256(b"".join(path.read_bytes() for path in initramfs.build(kernel).inputs)).hexdigest()

    assert digest() == digest()


def test_an_agent_that_can_not_be_imported_is_an_error(kernel: Kernel) -> None:
    with pytest.raises(Broken, match="nosuchagent"):
        initramfs.build(kernel, "nosuchagent")


def test_a_missing_module_is_an_error(kernel: Kernel) -> None:
    (kernel.modules / "kernel/9p.ko").unlink()
    with pytest.raises(Unsupported, match="9p"):
        initramfs.build(kernel)
