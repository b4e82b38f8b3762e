"""What an image's layers say, as a program sees it: loaded from an archive, through both walls."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import Walled
from tests.support.engine import TestEngine

MODE, OWNER = 0o6751, 4321
SPARSE = 3 << 20


class Layer:
    """A layer's tar in the making."""

    def __init__(self) -> None:
        self.buffer = io.BytesIO()
        self.tar = tarfile.TarFile(fileobj=self.buffer, mode="w", format=tarfile.PAX_FORMAT)

    def add(
        self, name: str, data: bytes = b"", *, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644, uid: int = 0,
        device: tuple[int, int] = (0, 0), mtime: int = 1_000_000_000, xattrs: dict[str, str] | None = None,
    ) -> Layer:  # fmt: skip
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.mode, info.uid, info.gid, info.mtime = kind, link, mode, uid, uid, mtime
        info.devmajor, info.devminor = device
        info.size = len(data)
        info.pax_headers = {f"SCHILY.xattr.{key}": value for key, value in (xattrs or {}).items()}
        self.tar.addfile(info, io.BytesIO(data))
        return self

    def folder(self, name: str, mode: int = 0o755, uid: int = 0) -> Layer:
        return self.add(name, kind=tarfile.DIRTYPE, mode=mode, uid=uid)

    def data(self) -> bytes:
        self.tar.close()
        return self.buffer.getvalue()


def docker_archive(path: Path, name: str, layers: list[bytes], *, packed: bool = False) -> Path:
    """What docker save writes: a manifest, a config, and the layers' tars."""
    config = {
        "architecture": "amd64", "os": "linux", "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]},
    }  # fmt: skip
    files = {f"layer{n}.tar": gzip.compress(layer, 1) if packed else layer for n, layer in enumerate(layers)}
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": list(files)}]
    files |= {"config.json": json.dumps(config).encode(), "manifest.json": json.dumps(manifest).encode()}
    with tarfile.open(path, "w") as tar:
        for member, data in files.items():
            info = tarfile.TarInfo(member)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def tools(layer: Layer) -> Layer:
    """A static shell, so that somebody can look."""
    layer.folder("bin").add("bin/busybox", Path("/bin/busybox").read_bytes(), mode=0o755)
    for applet in ("sh", "cat", "ls", "stat", "find", "du", "test", "readlink", "sha256sum", "touch", "rm", "mkdir", "head", "id"):
        layer.add(f"bin/{applet}", kind=tarfile.SYMTYPE, link="busybox")
    return layer


def three_layers() -> list[bytes]:
    first = tools(Layer())
    first.folder("keep").add("keep/stays", b"1").add("keep/goes", b"1")
    first.folder("cleared").add("cleared/old", b"1").folder("cleared/sub").add("cleared/sub/old", b"1")
    first.folder("gone").folder("gone/deep").add("gone/deep/file", b"1")
    first.add("was-file", b"1").folder("was-folder").add("was-folder/x", b"1")
    second = Layer()
    second.folder("keep").add("keep/.wh.goes")
    second.folder("cleared").add("cleared/.wh..wh..opq").add("cleared/new", b"2")
    second.add(".wh.gone").folder("was-file").add("was-file/inside", b"2").add("was-folder", b"2")
    second.add("owned", b"2", mode=MODE, uid=OWNER).folder("sticky", 0o1777)
    second.add("one", b"same", mode=0o640).add("two", kind=tarfile.LNKTYPE, link="one")
    second.add("pipe", kind=tarfile.FIFOTYPE, mode=0o622)
    second.folder("d").add("d/null", kind=tarfile.CHRTYPE, device=(1, 3), mode=0o666)
    second.add("d/disk", kind=tarfile.BLKTYPE, device=(7, 200), mode=0o660)
    second.add("dangling", kind=tarfile.SYMTYPE, link="../../nowhere").add("absolute", kind=tarfile.SYMTYPE, link="/keep/stays")
    second.add("tagged", b"2", xattrs={"user.colour": "green", "security.capability": CAPABILITY})
    second.add("n\u00e4me with space\nand newline", b"2")
    second.add("deep/" + "x" * 120 + "/" + "y" * 120, b"2")
    third = Layer().folder("gone").add("gone/again", b"3").add("keep/third", b"3")
    return [first.data(), second.data(), third.data()]


# cap_net_raw=ep, revision 2 (linux/capability.h): in a tar's headers the bytes stand as text
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000").decode("latin-1")


@pytest.fixture
def image(bothy: Walled, tmp_path: Path) -> str:
    archive = docker_archive(tmp_path / "image.tar", "content:1", three_layers(), packed=bothy.wall == "vm")
    assert bothy.engine("load", "-i", str(archive)).ok().line == "Loaded image: content:1"
    return "content:1"


@pytest.fixture
def inside(bothy: Walled, image: str) -> Callable[[str], str]:
    bothy("run", "-d", "--name", "i-look", image, "sh", "-c", "while :; do busybox sleep 100; done").ok()
    return lambda script: bothy("exec", "i-look", "sh", "-c", script).ok().out


def test_layers_are_merged(bothy: Walled, inside: Callable[[str], str]) -> None:
    assert inside("ls keep cleared gone was-file") == "cleared:\nnew\n\ngone:\nagain\n\nkeep:\nstays\nthird\n\nwas-file:\ninside\n"
    assert inside("cat was-folder") == "2"
    assert inside("find / -xdev -name '.wh.*'") == ""
    assert inside("stat -c '%a %u %g' owned sticky pipe") == f"{MODE:o} {OWNER} {OWNER}\n1777 0 0\n622 0 0\n"
    assert inside("stat -c %Y owned") == "1000000000\n"
    assert inside("stat -c %F pipe d/null d/disk") == "fifo\ncharacter special file\nblock special file\n"
    assert inside("stat -c '%t %T' d/null d/disk") == "1 3\n7 c8\n"
    assert inside("readlink dangling; readlink absolute; cat absolute") == "../../nowhere\n/keep/stays\n1"
    assert inside("ls | head -c 400 > /dev/null; test -f 'n\u00e4me with space\nand newline' && echo there") == "there\n"
    assert inside("cat deep/x*/y*") == "2"
    inside("rm -r keep/stays cleared; mkdir cleared; touch cleared/fresh; ls cleared >/dev/null")
    bothy("restart", "-t", "0", "i-look").ok()
    assert inside("ls keep cleared") == "cleared:\nfresh\n\nkeep:\nthird\n"
    bothy("rm", "-f", "i-look").ok()
    bothy.engine("rmi", "content:1").ok()


def test_hard_links_are_one_file(bothy: Walled, inside: Callable[[str], str]) -> None:
    one, two = inside("stat -c '%i %h %a' one two").splitlines()
    assert one == two
    assert one.endswith(" 2 640")
    assert inside("cat two") == "same"
    bothy("rm", "-f", "i-look").ok()
    bothy.engine("rmi", "content:1").ok()


def test_extended_attributes(bothy: Walled, debian: str, tmp_path: Path) -> None:
    """A base of Debian's, and a layer with attributes on top: perl asks getxattr(2), number 191 on x86-64."""
    base = tmp_path / "base.tar"
    bothy.engine("save", "-o", str(base), debian).ok()
    with tarfile.open(base) as tar:
        manifest = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
        layer = tar.extractfile(manifest[0]["Layers"][0])
        assert layer
        lower = layer.read()
    upper = Layer().add("tagged", b"2", xattrs={"user.colour": "green", "security.capability": CAPABILITY}).data()
    archive = docker_archive(tmp_path / "image.tar", "content:x", [lower, upper])
    bothy.engine("load", "-i", str(archive)).ok()
    script = (
        "for my $given (@ARGV) { my $name = $given . ''; my $path = '/tagged';  my $value = ' ' x 64; my $n = syscall(191, $path, $name, $value, 64);"
        " print $n < 0 ? \"none $!\" : unpack('H*', substr($value, 0, $n)), qq(\\n) }"
    )
    out = bothy("run", "--rm", "content:x", "/usr/bin/perl", "-e", script, "user.colour", "security.capability").ok().out
    assert out.splitlines() == [b"green".hex(), CAPABILITY.encode("latin-1").hex()]
    bothy.engine("rmi", "content:x").ok()


def test_sparse_files_stay_sparse(bothy: Walled, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    (root / "bin/busybox").write_bytes(Path("/bin/busybox").read_bytes())
    (root / "bin/busybox").chmod(0o755)
    (root / "bin/sh").symlink_to("busybox")
    with (root / "holes").open("wb") as file:
        file.write(b"begin")
        file.seek(SPARSE)
        file.write(b"end")
    subprocess.run(["tar", "-C", str(root), "--sparse", "-cf", str(tmp_path / "root.tar"), "."], check=True)
    bothy.engine("import", str(tmp_path / "root.tar"), "content:sparse").ok()
    script = "busybox stat -c %s /holes; busybox sha256sum < /holes; busybox du -k /holes"
    size, digest, used = bothy("run", "--rm", "content:sparse", "sh", "-c", script).ok().out.splitlines()
    assert int(size) == SPARSE + 3
    assert digest.split()[0] == hashlib.sha256((root / "holes").read_bytes()).hexdigest()
    if bothy.wall == "container":  # a machine's disk is compact in its own way
        assert int(used.split()[0]) < 64
    bothy.engine("rmi", "content:sparse").ok()


def test_save_of_two_images_is_what_others_read(settled: TestEngine, tmp_path: Path) -> None:
    docker_archive(tmp_path / "a.tar", "content:2", three_layers())
    settled("load", "-i", str(tmp_path / "a.tar")).ok()
    settled("tag", "content:2", "content:also").ok()
    settled("save", "-o", str(tmp_path / "saved.tar"), "content:2", "content:also", "busybox").ok()
    with tarfile.open(tmp_path / "saved.tar") as tar:
        manifest = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
    assert sorted(tag for entry in manifest for tag in entry["RepoTags"]) == ["busybox:latest", "content:2", "content:also"]
    seen = subprocess.run(
        ["skopeo", "inspect", f"docker-archive:{tmp_path}/saved.tar:content:2"], capture_output=True, text=True, check=True
    )
    assert len(json.loads(seen.stdout)["Layers"]) == 3
    ident = settled.json("image", "inspect", "content:2")[0]["Id"]
    settled("rmi", "content:2", "content:also").ok()
    again = settled("load", "-i", str(tmp_path / "saved.tar")).ok().out.splitlines()
    assert sorted(again) == ["Loaded image: busybox:latest", "Loaded image: content:2", "Loaded image: content:also"]
    assert settled.json("image", "inspect", "content:also")[0]["Id"] == ident
    settled("rmi", "content:2", "content:also").ok()


def _broken(kind: str, path: Path) -> Path:
    layers = three_layers()
    if kind == "cut off":
        docker_archive(path, "content:bad", layers)
        os.truncate(path, path.stat().st_size // 2)
    elif kind == "wrong digest":
        docker_archive(path, "content:bad", layers)
        path.write_bytes(path.read_bytes().replace(hashlib.sha256(layers[1]).hexdigest().encode(), b"0" * 64))
    elif kind == "layer is no tar":
        docker_archive(path, "content:bad", [layers[0], b"nonsense" * 500])
    elif kind == "no such layer":
        docker_archive(path, "content:bad", layers)
        path.write_bytes(path.read_bytes().replace(b'"layer1.tar"', b'"layer9.tar"'))
    elif kind == "bad name":
        docker_archive(path, "Content:BAD!", layers)
    elif kind == "whiteout climbs":
        docker_archive(path, "content:bad", [layers[0], Layer().add("../../../../tmp/.wh.bothy-kept").data()])
    else:
        evil = Layer().add("l", kind=tarfile.SYMTYPE, link="/tmp").add("l/.wh.bothy-kept").add("l/.wh..wh..opq")
        docker_archive(path, "content:bad", [layers[0], evil.data()])
    return path


BROKEN = ("cut off", "wrong digest", "layer is no tar", "no such layer", "bad name", "whiteout climbs", "whiteout through a link")


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_and_evil_archives(settled: TestEngine, tmp_path: Path, kind: str) -> None:
    kept = Path("/tmp/bothy-kept")
    kept.touch()
    try:
        done = settled("load", "-i", str(_broken(kind, tmp_path / "a.tar")))
        assert kept.exists()
    finally:
        kept.unlink()
    assert "Traceback" not in done.err
    if kind.startswith("whiteout") and done.code == 0:
        settled("rmi", "content:bad").ok()
    else:
        assert done.code == 1
        assert done.err.startswith("bothy: ")
    assert settled("image", "inspect", "content:bad").code == 1


def test_bootstrap_with_packages_and_a_name(bothy: Walled) -> None:
    """A Debian that also has what was asked for, under the name that was asked for."""
    if bothy.engine("image", "inspect", "d/more:1").code:
        bothy.engine("image", "bootstrap", "debian:bookworm", "-t", "d/more:1", "--include", "attr,libcap2-bin", timeout=300).ok()
    script = ". /etc/os-release; echo $VERSION_CODENAME; getfattr --version >/dev/null && echo attr; capsh --version; dpkg --audit"
    assert bothy("run", "--rm", "d/more:1", "bash", "-c", script).ok().out.splitlines()[:2] == ["bookworm", "attr"]
    if bothy.wall == "vm":
        bothy.engine("rmi", "d/more:1").ok()


@pytest.mark.parametrize("source", ["debian:nosuchsuite", "fedora"])
def test_bootstrap_of_nonsense(settled: TestEngine, source: str) -> None:
    done = settled("image", "bootstrap", source, "-t", "d/none")
    assert done.code == 1
    assert "Traceback" not in done.err
    assert source.split(":")[-1] in done.err
    assert settled("image", "inspect", "d/none").code == 1
