"""Names of kernel parameters."""

from __future__ import annotations

import pytest

from bothy.linux import sysctl


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/conf/eth0.1/forwarding", "net/ipv4/conf/eth0.1/forwarding"),
        ("net.ipv4.conf.eth0/1.forwarding", "net/ipv4/conf/eth0.1/forwarding"),
        ("name", "name"),
    ],
)
def test_both_separators(name: str, path: str) -> None:
    assert sysctl.path(name) == path


@pytest.mark.parametrize("name", ["", ".", "/", "net..x", "net.//.x", "net/../x", "net/./x", "net/", ".net", "net.x\0"])
def test_what_leads_elsewhere(name: str) -> None:
    with pytest.raises(ValueError, match="no kernel parameter"):
        sysctl.path(name)
