"""Images on this machine: bootstrap, import, load, save, tag, rmi."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.support.engine import TestEngine


def rootfs(path: Path, *extra: tuple[str, bytes]) -> Path:
    """A tar of a root with a static shell, and extra files."""
    with tarfile.open(path, "w") as tar:
        tar.add("/bin/busybox", "bin/busybox")
        for applet in ("sh", "cat", "ls", "true"):
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        for name, data in extra:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_import_tag_inspect_rmi(settled: TestEngine, tmp_path: Path) -> None:
    ident = settled("import", str(rootfs(tmp_path / "root.tar", ("motd", b"hi\n"))), "t/imported:1").ok().line
    assert ident.startswith("sha256:")
    assert settled("run", "--rm", "t/imported:1", "cat", "/motd").ok().out == "hi\n"
    settled("tag", "t/imported:1", "t/other").ok()
    seen = settled.json("image", "inspect", "t/other")[0]
    assert seen["Id"] == ident
    assert sorted(seen["RepoTags"]) == ["t/imported:1", "t/other:latest"]
    listed = [json.loads(line) for line in settled("images", "--format", "json").ok().out.splitlines()]
    assert {"t/imported", "t/other"} <= {row["Repository"] for row in listed}
    assert "Untagged: t/other:latest" in settled("rmi", "t/other").ok().out
    assert f"Deleted: {ident}" in settled("rmi", "t/imported:1").ok().out
    assert settled("image", "inspect", "t/imported:1").code == 1


def test_an_image_in_use_stays(settled: TestEngine, tmp_path: Path) -> None:
    settled("import", str(rootfs(tmp_path / "root.tar")), "t/used").ok()
    settled("create", "--name", "t-user", "t/used", "true").ok()
    done = settled("rmi", "t/used")
    assert done.code == 1
    assert "t-user" in done.err or "container" in done.err
    settled("rm", "t-user").ok()
    settled("rmi", "t/used").ok()


def test_save_and_load_round_trip(settled: TestEngine, tmp_path: Path) -> None:
    settled("import", str(rootfs(tmp_path / "root.tar", ("data", b"x" * 100000))), "t/saved:v1").ok()
    before = settled.json("image", "inspect", "t/saved:v1")[0]
    settled("save", "-o", str(tmp_path / "saved.tar"), "t/saved:v1").ok()
    settled("rmi", "t/saved:v1").ok()
    assert "t/saved:v1" in settled("load", "-i", str(tmp_path / "saved.tar")).ok().out
    after = settled.json("image", "inspect", "t/saved:v1")[0]
    assert (after["Id"], after["RootFS"]) == (before["Id"], before["RootFS"])
    assert settled("run", "--rm", "t/saved:v1", "sh", "-c", "cat /data | cat > /copy; ls /copy").ok().out == "/copy\n"
    settled("rmi", "t/saved:v1").ok()


@pytest.mark.parametrize("kind", ["oci-gzip", "oci-zstd", "stdin"])
def test_load_of_other_forms(settled: TestEngine, tmp_path: Path, kind: str) -> None:
    settled("import", str(rootfs(tmp_path / "root.tar")), "t/form:1").ok()
    archive = tmp_path / "image.tar"
    settled("save", "-o", str(archive), "t/form:1").ok()
    if kind == "stdin":
        settled("rmi", "t/form:1").ok()
        settled("load", stdin=archive.read_bytes()).ok()
    else:
        target = tmp_path / "layout.tar"
        flags = ["--dest-compress-format", kind.partition("-")[2], "--dest-compress"]
        subprocess.run(["skopeo", "copy", "-q", *flags, f"docker-archive:{archive}", f"oci-archive:{target}:t/form:1"], check=True)
        settled("rmi", "t/form:1").ok()
        assert "t/form:1" in settled("load", "-i", str(target)).ok().out
    assert settled("run", "--rm", "t/form:1", "true").code == 0
    settled("rmi", "t/form:1").ok()


def climbing(kind: str) -> bytes:
    """A root tar that tries to write /tmp/bothy-climbed on the host."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:

        def add(name: str, *, link: str = "", kind: bytes = tarfile.REGTYPE) -> None:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            info.size = 0 if link else 6
            tar.addfile(info, None if link else io.BytesIO(b"climb\n"))

        if kind == "dotdot":
            add("../" * 12 + "tmp/bothy-climbed")
        elif kind == "absolute":
            add("/tmp/bothy-climbed")
        elif kind == "symlink":
            add("out", link="/tmp", kind=tarfile.SYMTYPE)
            add("out/bothy-climbed")
        elif kind == "hardlink":
            add("steal", link="../" * 12 + "etc/hostname", kind=tarfile.LNKTYPE)
            add("steal")
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["dotdot", "absolute", "symlink", "hardlink"])
def test_a_tar_that_climbs_out_can_not(settled: TestEngine, tmp_path: Path, kind: str) -> None:
    hostname = Path("/etc/hostname").read_bytes()
    (tmp_path / "evil.tar").write_bytes(climbing(kind))
    done = settled("import", str(tmp_path / "evil.tar"), "t/evil")
    assert not Path("/tmp/bothy-climbed").exists()
    assert Path("/etc/hostname").read_bytes() == hostname
    if done.code == 0:
        settled("rmi", "t/evil").ok()
    else:
        assert "Traceback" not in done.err


@pytest.mark.parametrize("data", [b"", b"not a tar at all" * 100, b"\x1f\x8b" + b"\0" * 50])
def test_malformed_archives(settled: TestEngine, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "bad").write_bytes(data)
    for verb in (("load", "-i", str(tmp_path / "bad")), ("import", str(tmp_path / "bad"), "t/bad")):
        done = settled(*verb)
        assert done.code == 1, verb
        assert done.err.startswith("bothy: ")
        assert "Traceback" not in done.err
    assert settled("image", "inspect", "t/bad").code == 1


def test_a_damaged_layer_is_refused(settled: TestEngine, tmp_path: Path) -> None:
    settled("import", str(rootfs(tmp_path / "root.tar", ("data", b"x" * 100000))), "t/dmg:1").ok()
    settled("save", "-o", str(tmp_path / "a.tar"), "t/dmg:1").ok()
    settled("rmi", "t/dmg:1").ok()
    data = bytearray((tmp_path / "a.tar").read_bytes())
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "a.tar").write_bytes(data)
    done = settled("load", "-i", str(tmp_path / "a.tar"))
    assert done.code == 1
    assert settled("image", "inspect", "t/dmg:1").code == 1


def test_missing_file_and_missing_image(settled: TestEngine) -> None:
    assert settled("load", "-i", "/no/such/file").code == 1
    done = settled("save", "-o", "/tmp/bothy-never", "no/such:image")
    assert done.code == 1
    assert "no/such:image" in done.err
    assert not Path("/tmp/bothy-never").exists()
