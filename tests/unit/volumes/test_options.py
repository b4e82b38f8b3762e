"""Driver options: what mount(2) will be called with, and what is refused in which words."""

from __future__ import annotations

import errno

import pytest

from bothy.errors import Broken, Invalid
from bothy.linux import syscalls as sc
from bothy.volumes import options
from bothy.volumes.options import Call


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"type": "none", "o": "bind", "device": "/srv"}, Call("/srv", "none", sc.MS_BIND)),
        ({"type": "none", "o": "rbind,ro,rslave", "device": "/srv"},
         Call("/srv", "none", sc.MS_BIND | sc.MS_REC | sc.MS_RDONLY, "", sc.MS_SLAVE | sc.MS_REC)),
        ({"type": "tmpfs", "o": "size=64m,uid=1000,noexec", "device": "tmpfs"}, Call("tmpfs", "tmpfs", sc.MS_NOEXEC, "size=64m,uid=1000")),
        ({"type": "tmpfs", "o": "size=64m"}, Call("tmpfs", "tmpfs", 0, "size=64m")),
        ({"type": "nfs", "o": "addr=10.0.0.9,rw,nfsvers=4,soft", "device": ":/export/a"},
         Call(":/export/a", "nfs", 0, "addr=10.0.0.9,nfsvers=4,soft")),
        ({"type": "nfs", "o": "rw,addr=localhost,soft", "device": ":/x"}, Call(":/x", "nfs", 0, "addr=127.0.0.1,soft")),
        ({"type": "cifs", "o": "username=a,password=b,addr=localhost", "device": "//localhost/x"},
         Call("//localhost/x", "cifs", 0, "username=a,password=b,addr=127.0.0.1")),
        ({"type": "ext4", "o": "addr=localhost", "device": "/dev/sdb"}, Call("/dev/sdb", "ext4", 0, "addr=localhost")),
        ({"type": "btrfs", "device": "/dev/sdb"}, Call("/dev/sdb", "btrfs")),
    ],
)  # fmt: skip
def test_what_is_mounted(given: dict[str, str], expected: Call) -> None:
    options.check(given)
    found = options.call(given)
    # A resolver may prefer ::1 for localhost.
    assert Call(found.source, found.fstype, found.flags, found.data.replace("=::1", "=127.0.0.1"), found.propagation) == expected


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"colour": "red"}, 'invalid option: "colour"'),
        ({"type": "nfs"}, 'missing required option: "device"'),
        ({"device": "/x"}, 'missing required option: "type"'),
        ({"o": "bind"}, 'missing required option: "device"'),
        ({"type": "tmpfs", "size": "10m"}, "option size is a quota of a plain volume, not for one of a type"),
        ({"size": "much"}, "invalid size: 'much'"),
        ({"size": "1k"}, "invalid size: '1k'"),
        ({"size": "99t"}, "invalid size: '99t'"),
    ],
)
def test_what_is_refused(given: dict[str, str], words: str) -> None:
    with pytest.raises(Invalid) as caught:
        options.check(given)
    assert caught.value.message == words


@pytest.mark.parametrize(
    ("text", "number"), [("10G", 10 << 30), ("1.5g", 3 << 29), ("64mb", 64 << 20), ("64 MiB", 64 << 20), ("16777217", 17 << 20)]
)
def test_sizes(text: str, number: int) -> None:
    assert options.size({"size": text}) == number
    assert options.size({}) == 0


def test_a_refusal_tells_the_call_but_no_password() -> None:
    call = Call("//s/x", "cifs", sc.MS_RDONLY, "username=a,password=geheim,addr=10.0.0.1")
    told = options.failure(call, "/v/_data", OSError(errno.ENODEV, "No such device"))
    assert told.message == (
        "error while mounting volume '/v/_data': failed to mount local volume: mount //s/x:/v/_data, flags: 0x1, "
        "data: username=a,password=********,addr=10.0.0.1: no such device"
    )
    assert "cifs" in told.hint


def test_a_server_that_nobody_knows() -> None:
    with pytest.raises(Broken, match=r"error resolving passed in network volume address: lookup no\.\.such"):
        options.call({"type": "nfs", "o": "addr=no..such", "device": ":/x"})
