"""Sizes, durations, ports and mounts of the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from bothy.cli import mounts, ports, values
from bothy.cli.errors import UsageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1024", 1024),
        ("1k", 1024),
        ("512m", 1 << 29),
        ("1.5g", 3 << 29),
        ("64MiB", 64 << 20),
        ("2 GB", 2 << 30),
        ("1b", 1),
        ("0", 0),
    ],
)
def test_sizes(text: str, expected: int) -> None:
    assert values.size(text, "memory") == expected


@pytest.mark.parametrize("text", ["", "m", "1x", "-1", "1..5m", "nan", "1e5x"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="invalid size"):
        values.size(text, "memory")


@pytest.mark.parametrize(
    ("text", "expected"), [("1h30m", 5400), ("1.5s", 1.5), ("300ms", 0.3), ("0", 0), ("2m", 120), ("1us", 1e-6)]
)
def test_durations(text: str, expected: float) -> None:
    assert values.duration(text, "health-interval") == int(expected * 1e9)


@pytest.mark.parametrize("text", ["", "5", "s", "5x", "1h 30m", "-1s"])
def test_durations_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="invalid duration"):
        values.duration(text, "health-interval")


@pytest.mark.parametrize(
    ("text", "expected"), [("1.5", 1_500_000_000), ("2", 2_000_000_000), (".5", 500_000_000), ("0.000000001", 1)]
)
def test_cpus(text: str, expected: int) -> None:
    assert values.nano_cpus(text) == expected


def test_a_label_without_a_value_is_empty(tmp_path: Path) -> None:
    (tmp_path / "labels").write_text("\ufeffa=b\r\nc\n# d\n")
    assert values.labels(["e"], [str(tmp_path / "labels")]) == {"a": "b", "c": "", "e": ""}


def test_a_name_with_a_space_in_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "env").write_text("A B=1\n")
    with pytest.raises(UsageError, match="contains a space"):
        values.environment([], [str(tmp_path / "env")], {})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("80", {"80/tcp": [{"HostIp": "", "HostPort": ""}]}),
        ("127.0.0.1::80/UDP", {"80/udp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}),
        ("::1:8080:80", {"80/tcp": [{"HostIp": "::1", "HostPort": "8080"}]}),
        ("8000-8010:80", {"80/tcp": [{"HostIp": "", "HostPort": "8000-8010"}]}),
        (
            "8000-8001:80-81",
            {"80/tcp": [{"HostIp": "", "HostPort": "8000"}], "81/tcp": [{"HostIp": "", "HostPort": "8001"}]},
        ),
    ],
)
def test_ports(text: str, expected: dict[str, list[dict[str, str]]]) -> None:
    assert ports.publish([text]) == expected


def test_a_port_may_be_published_twice() -> None:
    assert [b["HostPort"] for b in ports.publish(["1:80", "2:80"])["80/tcp"]] == ["1", "2"]


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("type=bind,src=/s,dst=/t,ro,bind-recursive=writable",
         {"Type": "bind", "Source": "/s", "Target": "/t", "ReadOnly": True, "BindOptions": {"ReadOnlyNonRecursive": True}}),
        ("type=bind,src=/s,dst=/t,bind-recursive=disabled,bind-create-mountpoint",
         {"Type": "bind", "Source": "/s", "Target": "/t", "BindOptions": {"NonRecursive": True, "CreateMountpoint": True}}),
        ("src=vol,dst=/t,volume-subpath=a/b,volume-nocopy,volume-label=k=v,\"volume-opt=o=size=1m,uid=7\"",
         {"Type": "volume", "Source": "vol", "Target": "/t",
          "VolumeOptions": {"Subpath": "a/b", "NoCopy": True, "Labels": {"k": "v"}, "DriverConfig": {"Options": {"o": "size=1m,uid=7"}}}}),
        ("type=image,source=busybox,target=/t,image-subpath=bin",
         {"Type": "image", "Source": "busybox", "Target": "/t", "ImageOptions": {"Subpath": "bin"}}),
        ("type=tmpfs,target=/t,tmpfs-size=64k,tmpfs-mode=1770,tmpfs-opt=exec,tmpfs-opt=uid=7",
         {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 65536, "Mode": 0o1770, "Options": [["exec"], ["uid", "7"]]}}),
    ],
)  # fmt: skip
def test_mounts(text: str, entry: dict[str, object]) -> None:
    assert mounts.mount(text) == entry


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("type=bind,src=/s,dst=/t,bind-recursive=writable", "bind-recursive=writable requires readonly"),
        ("type=bind,src=/s,dst=/t,ro,bind-recursive=readonly,bind-propagation=rslave", "requires bind-propagation=rprivate"),
        ("type=bind,src=/s,dst=/t,image-subpath=x", "options for image do not fit type bind"),
        ("type=bind,src=/s,dst=/t,image-path=x", "there is no key 'image-path'"),
    ],
)
def test_mounts_that_can_not_be(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        mounts.mount(text)


def test_a_quoted_field_of_a_mount_may_hold_commas() -> None:
    assert mounts.mount('type=bind,"source=/a,b",target=/c')["Source"] == "/a,b"
    with pytest.raises(UsageError, match="not closed"):
        mounts.mount('type=bind,"source=/a')


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/dev/a", ("/dev/a", "/dev/a", "rwm")),
        ("/dev/a:/dev/b", ("/dev/a", "/dev/b", "rwm")),
        ("/dev/a:r", ("/dev/a", "/dev/a", "r")),
        ("/dev/a:/dev/b:rw", ("/dev/a", "/dev/b", "rw")),
    ],
)
def test_devices(text: str, expected: tuple[str, str, str]) -> None:
    assert tuple(values.device(text).values()) == expected
