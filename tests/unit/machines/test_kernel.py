from __future__ import annotations

import gzip
import lzma
import struct
from pathlib import Path

import pytest

from bothy.errors import Unavailable, Unsupported
from bothy.machines import kernel
from bothy.machines.kernel import Kernel
from bothy.paths import Paths


def module(*depends: str) -> bytes:
    return b"\x7fELF\0license=GPL\0depends=" + ",".join(depends).encode() + b"\0name=x\0"


def make_kernel(root: Path, version: str, modules: dict[str, bytes], builtin: str = "") -> None:
    place = root / "lib/modules" / version
    for name, data in modules.items():
        path = place / "kernel/drivers" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (place / "modules.builtin").write_text(builtin)
    (root / "boot").mkdir(exist_ok=True)
    (root / "boot" / f"vmlinuz-{version}").write_bytes(b"MZ")


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "root", tmp_path / "run")


def whole() -> dict[str, bytes]:
    return {f"{name}.ko": module() for name in kernel.MODULES}


def test_the_newest_kernel_with_all_modules_is_taken_and_the_state_root_wins(tmp_path: Path, paths: Paths) -> None:
    host = tmp_path / "host"
    make_kernel(host, "6.1.0-9-amd64", whole())
    make_kernel(host, "6.1.0-10-amd64", whole())
    make_kernel(host, "6.1.0-11-cloud-amd64", {name: data for name, data in whole().items() if name != "9p.ko"})
    assert kernel.find(paths, host).version == "6.1.0-10-amd64"
    own = paths.machines / "kernels/old"
    own.mkdir(parents=True)
    make_kernel(own, "5.10.0-1-amd64", whole())
    assert kernel.find(paths, host).version == "5.10.0-1-amd64"


def test_no_kernel_is_an_error_that_names_the_package(tmp_path: Path, paths: Paths) -> None:
    with pytest.raises(Unavailable) as caught:
        kernel.find(paths, tmp_path)
    assert kernel.PACKAGE in caught.value.hint


def test_a_kernel_that_lacks_modules_is_named_with_them(tmp_path: Path, paths: Paths) -> None:
    make_kernel(
        tmp_path, "6.1.0-1-cloud-amd64", {name: data for name, data in whole().items() if name not in ("9p.ko", "erofs.ko")}
    )
    with pytest.raises(Unavailable, match=r"vmlinuz-6\.1\.0-1-cloud-amd64 lacks 9p, erofs"):
        kernel.find(paths, tmp_path)


def test_modules_come_after_what_they_depend_on(tmp_path: Path) -> None:
    names = {"ext4.ko": module("jbd2", "crc-16"), "jbd2.ko": module(), "crc-16.ko.xz": lzma.compress(module("base"))}
    make_kernel(tmp_path, "6", names, builtin="kernel/lib/base.ko\n")
    found = Kernel("6", tmp_path / "boot/vmlinuz-6", tmp_path / "lib/modules/6")
    order = kernel.load_order(found, ["ext4"])
    assert [path.name for path in order] == ["jbd2.ko", "crc-16.ko.xz", "ext4.ko"]
    assert kernel.module_data(order[1]) == module("base")
    with pytest.raises(Unsupported, match="has no module nosuch"):
        kernel.load_order(found, ["nosuch"])


def test_a_module_in_an_unknown_compression_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.ko.zst"
    path.write_bytes(b"\x28\xb5\x2f\xfd")
    with pytest.raises(Unsupported):
        kernel.module_data(path)


def bz_image(payload: bytes) -> bytes:
    image = bytearray(2 * 512)
    image[0x1F1] = 1
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", image, 0x248, 16, len(payload))
    return bytes(image) + bytes(16) + payload


def elf(note: bytes) -> bytes:
    header = bytearray(64)
    header[:4] = b"\x7fELF"
    struct.pack_into("<Q", header, 32, 64)
    struct.pack_into("<HH", header, 54, 56, 1)
    program = struct.pack("<IIQQQQQQ", 4, 0, 120, 0, 0, len(note), len(note), 4)
    return bytes(header) + program + note


def test_the_elf_is_got_out_of_a_bzimage() -> None:
    inside = elf(struct.pack("<III", 4, 8, 18) + b"Xen\0" + bytes(8))
    assert kernel.elf_of(bz_image(lzma.compress(inside) + b"size")) == inside
    assert kernel.elf_of(bz_image(gzip.compress(inside) + b"size")) == inside
    assert kernel.elf_of(inside) == inside
    assert kernel.has_pvh_note(inside)
    assert not kernel.has_pvh_note(elf(struct.pack("<III", 4, 8, 1) + b"GNU\0" + bytes(8)))


@pytest.mark.parametrize("image", [b"", b"MZ" * 600, bz_image(b"\x02!L\x18 lz4"), bz_image(lzma.compress(b"no elf") + b"size")])
def test_an_image_that_does_not_open_gives_nothing(image: bytes) -> None:
    assert kernel.elf_of(image) is None
