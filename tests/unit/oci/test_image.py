"""Image documents, manifests and platforms: what others write is read, what was set is written."""

import json

import pytest

from bothy.jsonable import PLAIN
from bothy.oci import distribution, image, platform
from bothy.oci.image import OCI, Healthcheck, History, ImageConfig, ImageDocument, RootFS

DIFF = "sha256:" + "0" * 64

DOCKER = {
    "architecture": "amd64",
    "config": {
        "Hostname": "", "AttachStdin": False, "Env": ["PATH=/bin"], "Cmd": ["sh"], "Entrypoint": None, "Labels": None, "Volumes": None,
        "ExposedPorts": {"80/tcp": {}}, "OnBuild": None, "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 5000000000},
    },
    "container_config": {"Cmd": ["/bin/sh"]},
    "created": "2024-01-01T00:00:00Z",
    "docker_version": "20.10.24",
    "history": [{"created": "2024-01-01T00:00:00Z", "created_by": "x", "empty_layer": True}],
    "os": "linux",
    "rootfs": {"type": "layers", "diff_ids": [DIFF]},
}  # fmt: skip


def test_a_configuration_of_docker_is_read():
    document = OCI.loads(ImageDocument, json.dumps(DOCKER))
    assert document.rootfs.diff_ids == [DIFF]
    assert document.config.cmd == ["sh"]
    assert document.config.entrypoint is None
    assert document.config.exposed_ports == {"80/tcp": {}}
    assert document.config.healthcheck == Healthcheck(["CMD-SHELL", "true"], 5_000_000_000)
    assert document.history == [History("2024-01-01T00:00:00Z", "x", empty_layer=True)]


@pytest.mark.parametrize("broken", [{"rootfs": 1}, {"config": []}, {"architecture": 7}, {"rootfs": {"diff_ids": ["a", 1]}}])
def test_a_configuration_of_wrong_types_is_refused(broken):
    with pytest.raises(ValueError, match=next(iter(broken))):
        OCI.from_data(ImageDocument, DOCKER | broken)


def test_only_what_was_set_is_written():
    document = ImageDocument("amd64", "linux", RootFS([DIFF]), config=ImageConfig(cmd=["sh"]), history=[History(created_by="x")])
    assert image.document_data(document) == {
        "architecture": "amd64", "os": "linux", "rootfs": {"diff_ids": [DIFF], "type": "layers"}, "config": {"Cmd": ["sh"]},
        "history": [{"created_by": "x"}],
    }  # fmt: skip


def test_manifests_and_indexes_are_read_and_written():
    descriptor = {
        "mediaType": distribution.OCI_LAYER_ZSTD,
        "digest": DIFF,
        "size": 3,
        "platform": {"os": "linux", "architecture": "arm64"},
    }
    manifest = PLAIN.from_data(distribution.Manifest, {"schemaVersion": 2, "config": descriptor, "layers": [descriptor]})
    assert manifest.layers[0].platform == platform.Platform("arm64", "linux")
    assert PLAIN.to_data(manifest)["layers"][0]["mediaType"] == distribution.OCI_LAYER_ZSTD


def test_what_serves_a_platform():
    v3 = platform.parse("linux/amd64/v3")
    assert platform.parse("amd64").serves(v3)
    assert not v3.serves(platform.parse("amd64"))
    assert platform.parse("linux/arm64/v8").serves(platform.parse("arm64"))
    assert not platform.parse("arm64").serves(platform.parse("amd64"))
    assert platform.parse("linux") == platform.Platform(platform.host().architecture, "linux")


def test_platforms_match_with_their_implied_variants():
    arm = platform.parse("linux/arm64")
    assert arm.matches(platform.parse("linux/arm64/v8"))
    assert platform.parse("aarch64") == arm
    assert not platform.parse("linux/arm/v6").matches(platform.parse("linux/arm"))
    assert not platform.parse("windows/arm64").matches(arm)
    assert str(platform.parse("linux/arm/v6")) == "linux/arm/v6"
    assert platform.host().os == "linux"
    for bad in ("", "a/b/c/d", "linux//v8"):
        with pytest.raises(ValueError, match="invalid platform"):
            platform.parse(bad)
