"""`--secret` and `update` as they are read."""

from __future__ import annotations

import pytest

from bothy.cli import flags, registry, secrets, update
from bothy.cli.errors import UsageError


def test_a_secret_in_all_its_forms() -> None:
    assert secrets.mount("key") == {"Source": "key"}
    assert secrets.mount("key,target=/etc/k,uid=1,gid=2,mode=0400,type=mount") == {
        "Source": "key", "Target": "/etc/k", "UID": 1, "GID": 2, "Mode": 0o400,
    }  # fmt: skip
    assert secrets.mount("id=key,dst=k") == {"Source": "key", "Target": "k"}


@pytest.mark.parametrize(
    "text", ["", ",", "target=x", "key,bogus=1", "key,mode=", "key,mode=8", "key,uid=-1", "key,type=env", "key,key"]
)
def test_what_is_no_secret(text: str) -> None:
    with pytest.raises(UsageError):
        secrets.mount(text)


def test_what_an_update_asks_for() -> None:
    words = [
        "-m",
        "1g",
        "--memory-swap",
        "-1",
        "--cpus",
        "1.5",
        "--pids-limit",
        "0",
        "--cpuset-cpus",
        "0-1",
        "-c",
        "5",
        "--restart",
        "on-failure:2",
        "one",
        "two",
    ]
    values = flags.parse(registry.command("update"), words)
    assert values.args == ["one", "two"]
    assert update.body(values) == {
        "Memory": 1 << 30, "MemorySwap": -1, "NanoCpus": 1_500_000_000, "PidsLimit": 0, "CpusetCpus": "0-1", "CpuShares": 5,
        "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2},
    }  # fmt: skip
