"""What the command line makes of the flags of networks and ports."""

from __future__ import annotations

import pytest

from bothy.cli import exposure, networks
from bothy.cli.errors import UsageError
from bothy.cli.flags import Values, parse


def create(*argv: str) -> Values:
    return parse(networks.COMMANDS["network create"], [*argv, "name"])


def test_each_subnet_has_what_lies_in_it() -> None:
    flags = create(
        "--subnet", "10.1.0.0/16", "--subnet", "fd00::/64", "--gateway", "fd00::9", "--gateway", "10.1.0.9",
        "--ip-range", "10.1.5.0/24", "--aux-address", "a=10.1.5.1", "--aux-address", "b=fd00::5",
    )  # fmt: skip
    assert networks.pools(flags) == [
        {"Subnet": "10.1.0.0/16", "Gateway": "10.1.0.9", "IPRange": "10.1.5.0/24", "AuxiliaryAddresses": {"a": "10.1.5.1"}},
        {"Subnet": "fd00::/64", "Gateway": "fd00::9", "AuxiliaryAddresses": {"b": "fd00::5"}},
    ]
    several = create("--subnet", "10.1.0.0/16,10.2.0.0/16", "--gateway", "10.2.0.3")
    assert networks.pools(several) == [{"Subnet": "10.1.0.0/16"}, {"Subnet": "10.2.0.0/16", "Gateway": "10.2.0.3"}]
    assert networks.pools(create()) == []


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--gateway", "10.0.0.1"], "no matching subnet for --gateway 10.0.0.1"),
        (["--subnet", "10.0.0.0/24", "--gateway", "fd00::1"], "no matching subnet for --gateway fd00::1"),
        (["--subnet", "10.0.0.0/24", "--gateway", "10.0.0.1", "--gateway", "10.0.0.2"], "--gateway is given twice"),
        (["--subnet", "10.0.0.0/24", "--aux-address", "10.0.0.5"], "invalid auxiliary address"),
        (["--subnet", "10.0.0.0/24", "--subnet", "10.1.0.0/24", "--ip-range", "10.7.0.0/25"], "no matching subnet"),
        (["--subnet", "10.0.0.0/24", "--subnet", "10.1.0.0/24", "--gateway", "x.y"], "invalid value for --gateway"),
    ],
)
def test_what_lies_in_no_subnet_is_refused(argv: list[str], message: str) -> None:
    with pytest.raises(UsageError) as refusal:
        networks.pools(create(*argv))
    assert message in refusal.value.message


def test_a_row_of_exposure() -> None:
    port = {
        "Workload": "ab" * 32, "Name": "web", "Port": 80, "Protocol": "tcp", "HostIp": "::", "HostPort": 8080, "Target": "fd00::2",
        "Reach": "world", "At": ["2001:db8::1"],
    }  # fmt: skip
    assert exposure.row(port) == {
        "ID": "abababababab", "Name": "web", "Port": "80/tcp", "Address": "[::]:8080", "Reach": "everywhere", "At": "2001:db8::1",
        "Target": "fd00::2",
    }  # fmt: skip
