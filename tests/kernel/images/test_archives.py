"""Archives in and out: what we write others read, what others write we read, and the digests are the same."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import subprocess
import tarfile

import pytest
import zstandard

from bothy.errors import Invalid, NotFound
from bothy.images.store import ImageStore
from bothy.oci import digest as digests
from bothy.oci import platform
from bothy.paths import Paths
from tests.kernel.images.conftest import entry, file, hardlink, symlink


class Layout:
    """An OCI layout being made in a folder."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "blobs/sha256").mkdir(parents=True)
        (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')

    def blob(self, data: bytes, **more) -> dict:
        digest = digests.of(data)
        (self.folder / "blobs/sha256" / digest[7:]).write_bytes(data)
        return {"digest": digest, "size": len(data), **more}

    def image(self, *layers: bytes, pack=lambda data: data, architecture=platform.host().architecture, **more) -> dict:
        config = {
            "architecture": architecture, "os": "linux", "config": {"Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": [digests.of(layer) for layer in layers]},
        }  # fmt: skip
        manifest = {
            "schemaVersion": 2,
            "config": self.blob(json.dumps(config).encode()),
            "layers": [self.blob(pack(layer)) for layer in layers],
        }
        return self.blob(json.dumps(manifest).encode(), platform={"os": "linux", "architecture": architecture}, **more)

    def index(self, *manifests: dict) -> None:
        (self.folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": manifests}))

    def tar(self, path):
        subprocess.run(["tar", "-C", self.folder, "-cf", path, "."], check=True)
        return path


@pytest.fixture
def layout(tmp_path):
    folder = tmp_path / "layout"
    folder.mkdir()
    return Layout(folder)


@pytest.fixture
def other(tmp_path):
    """A second store."""
    opened = ImageStore(Paths(tmp_path / "other", tmp_path / "other-run"))
    yield opened
    opened.close()


def rich(tars) -> bytes:
    return tars(
        entry("./"), entry("bin"), file("bin/a", b"a" * 100_000, mode=0o4755), hardlink("bin/b", "bin/a"), symlink("c", "bin/a"),
        file("x" * 150, b"long"), entry("dev/null", tarfile.CHRTYPE, devmajor=1, devminor=3), file("d/.wh.e"), file("empty"),
    ).read_bytes()  # fmt: skip


def test_save_and_load_keep_every_digest(store, other, tars, tmp_path, layout):
    first, second = rich(tars), tars(file("second", b"2"), file("second", b"again")).read_bytes()
    layout.index(layout.image(first, second, pack=gzip.compress, annotations={"io.containerd.image.name": "docker.io/me/app:1"}))
    assert store.load(layout.folder) == ["me/app:1"]
    image = store.resolve("me/app:1")
    assert image.digest.startswith("sha256:")
    store.tag("me/app:1", "me/app:2")
    store.save(["me/app"], tmp_path / "out.tar")
    assert sorted(other.load(tmp_path / "out.tar")) == ["me/app:1", "me/app:2"]
    copy = other.resolve("me/app:2")
    assert (copy.id, copy.layers, copy.size, copy.repo_tags) == (image.id, image.layers, image.size, ["me/app:1", "me/app:2"])
    other.save(["me/app"], tmp_path / "again.tar")
    assert (tmp_path / "again.tar").read_bytes() == (tmp_path / "out.tar").read_bytes()
    with tarfile.open(tmp_path / "out.tar") as archive:
        for member in archive:
            if member.name.startswith("blobs/sha256/"):
                assert hashlib.sha256(archive.extractfile(member).read()).hexdigest() == member.name[13:]


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor().compress, bytes], ids=["gzip", "zstd", "plain"])
@pytest.mark.parametrize("how", ["folder", "tar", "tar.gz", "tar.zst"])
def test_oci_layouts(store, tars, layout, tmp_path, pack, how):
    layout.index(layout.image(rich(tars), pack=pack))
    path = layout.folder if how == "folder" else layout.tar(tmp_path / "layout.tar")
    if how == "tar.gz":
        subprocess.run(["gzip", path], check=True)
    elif how == "tar.zst":
        subprocess.run(["zstd", "-q", path], check=True)
    (name,) = store.load(tmp_path / f"layout.{how}" if how != "folder" else path)
    assert name.startswith("sha256:")
    assert store.resolve(name).config.cmd == ["sh"]


def test_of_several_platforms_ours_is_taken(store, tars, layout):
    layer = rich(tars)
    alien = layout.image(layer, architecture="s390x")
    attestation = layout.blob(
        b"{}", platform={"os": "unknown", "architecture": "unknown"}, annotations={"vnd.docker.reference.type": "a"}
    )
    index = layout.blob(json.dumps({"schemaVersion": 2, "manifests": [alien, layout.image(layer), attestation]}).encode())
    layout.index(
        index
        | {"mediaType": "application/vnd.oci.image.index.v1+json", "annotations": {"org.opencontainers.image.ref.name": "x:y"}}
    )
    assert store.load(layout.folder) == ["x:y"]
    assert store.resolve("x:y").architecture == platform.host().architecture


def test_no_image_for_this_machine(store, tars, layout):
    layer = rich(tars)
    layout.index(layout.image(layer, architecture="s390x"), layout.image(layer, architecture="ppc64le"))
    with pytest.raises(NotFound, match="it has linux/ppc64le, linux/s390x"):
        store.load(layout.folder)


@pytest.mark.parametrize(
    "damage", ["layer", "config", "manifest", "missing layer", "diff id", "layer count", "index", "climbing digest"]
)
def test_damaged_layouts(store, tars, layout, damage):
    layer = rich(tars)
    descriptor = layout.image(layer, rich(tars) + bytes(512))
    blobs = layout.folder / "blobs/sha256"
    manifest = json.loads((blobs / descriptor["digest"][7:]).read_bytes())
    target = {"layer": manifest["layers"][1], "config": manifest["config"], "manifest": descriptor}.get(damage)
    if target is not None:
        path = blobs / target["digest"][7:]
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif damage == "missing layer":
        (blobs / manifest["layers"][1]["digest"][7:]).unlink()
    elif damage == "diff id":
        manifest["layers"].reverse()
        descriptor = layout.blob(json.dumps(manifest).encode())
    elif damage == "layer count":
        manifest["layers"].pop()
        descriptor = layout.blob(json.dumps(manifest).encode())
    elif damage == "climbing digest":
        manifest["config"]["digest"] = "sha256:../../../../../../etc/passwd"
        descriptor = layout.blob(json.dumps(manifest).encode())
    layout.index(descriptor)
    if damage == "index":
        (layout.folder / "index.json").write_text("[" * 100_000)
    with pytest.raises(Invalid):
        store.load(layout.folder)
    assert store.list() == []


def test_a_layout_can_not_point_out_of_its_folder(store, layout, tmp_path):
    secret = tmp_path / "index.json"
    secret.write_text(json.dumps({"schemaVersion": 2, "manifests": []}))
    (layout.folder / "index.json").symlink_to(secret)
    with pytest.raises(Invalid):
        store.load(layout.folder)


def test_a_docker_archive_of_old_with_links_between_layers(store, tars, tmp_path):
    """docker save of 20.10 writes a layer that two images share once, and links to it."""
    layer = rich(tars)
    configs = []
    folder = tmp_path / "saved"
    for number in (1, 2):
        (folder / f"l{number}").mkdir(parents=True)
        config = {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [digests.of(layer)]},
            "comment": str(number),
        }
        data = json.dumps(config).encode()
        name = f"{hashlib.sha256(data).hexdigest()}.json"
        (folder / name).write_bytes(data)
        configs.append({"Config": name, "RepoTags": [f"app:{number}"] if number == 1 else None, "Layers": [f"l{number}/layer.tar"]})
    (folder / "l1/layer.tar").write_bytes(layer)
    (folder / "l2/layer.tar").symlink_to("../l1/layer.tar")
    (folder / "manifest.json").write_text(json.dumps(configs))
    subprocess.run(["tar", "-C", folder, "-cf", tmp_path / "saved.tar", "."], check=True)
    names = store.load(tmp_path / "saved.tar")
    assert names == ["app:1", f"sha256:{configs[1]['Config'][:64]}"]
    assert store.layers(store.resolve(names[0])) == store.layers(store.resolve(names[1]))


def test_a_file_that_is_no_image_archive(store, tars, tmp_path):
    with pytest.raises(Invalid, match="neither a docker archive nor an OCI layout"):
        store.load(tars(file("a", b"a")))
    with pytest.raises(NotFound, match="no such file"):
        store.load(tmp_path / "missing")


def test_others_read_what_is_saved(store, tmp_path):
    store.bootstrap("busybox")
    store.save(["busybox"], tmp_path / "out.tar")
    image = store.resolve("busybox")
    seen = subprocess.run(
        ["skopeo", "inspect", "--config", f"docker-archive:{tmp_path / 'out.tar'}"], capture_output=True, text=True, check=True
    )
    assert json.loads(seen.stdout)["rootfs"]["diff_ids"] == image.layers
    seen = subprocess.run(
        ["skopeo", "inspect", "--raw", f"oci-archive:{tmp_path / 'out.tar'}"], capture_output=True, text=True, check=True
    )
    assert json.loads(seen.stdout)["config"]["digest"] == image.id


@pytest.mark.parametrize("kind", ["oci", "oci-archive", "docker-archive"])
def test_what_skopeo_writes_is_read(store, other, tmp_path, kind):
    store.bootstrap("busybox")
    store.save(["busybox"], tmp_path / "out.tar")
    target = tmp_path / "copied"
    reference = f"{kind}:{target}:docker.io/library/copy:1" if kind == "docker-archive" else f"{kind}:{target}:localhost/copy:1"
    policy = ["--insecure-policy", "--tmpdir", str(tmp_path)]
    subprocess.run(["skopeo", *policy, "copy", "-q", f"docker-archive:{tmp_path / 'out.tar'}", reference], check=True)
    (name,) = other.load(target)
    assert name in ("copy:1", "localhost/copy:1")
    copy, image = other.resolve(name), store.resolve("busybox")
    assert copy.layers == image.layers
    assert copy.config.cmd == image.config.cmd


def test_a_saved_layer_that_was_changed_is_noticed(store, tars, tmp_path):
    image = store.import_rootfs(tars(file("a", b"right")), "x")
    (store.layers(image)[0] / "a").write_bytes(b"wrong")
    with pytest.raises(Exception, match="changed in the store"):
        store.save(["x"], tmp_path / "out.tar")
    assert not (tmp_path / "out.tar").exists()
    (store.layers(image)[0] / "a").unlink()
    (store.layers(image)[0] / "a").symlink_to("/etc/hostname")
    with pytest.raises(Exception, match="save"):
        store.save(["x"], tmp_path / "out.tar")
    shutil.rmtree(store.layers(image)[0])
    store.layers(image)[0].mkdir()
    with pytest.raises(Exception, match="save"):
        store.save(["x"], tmp_path / "out.tar")
