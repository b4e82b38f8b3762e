"""Networks as data: what is asked for, what is chosen, what is kept."""

from __future__ import annotations

import json
from ipaddress import ip_network
from pathlib import Path

import pytest

from bothy.errors import Broken, Conflict, Forbidden, Invalid, NotFound
from bothy.networks.catalog import Catalog
from bothy.networks.model import IpamPool, Lease, Network, NetworkRequest, way_out
from bothy.paths import Paths


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "root", tmp_path / "run")


def made(catalog: Catalog, request: NetworkRequest) -> Network:
    network = catalog.design(request, [])
    catalog.keep(network)
    return network


def test_what_is_kept_is_there_again(paths: Paths) -> None:
    catalog = Catalog(paths)
    one = made(catalog, NetworkRequest("one", ipv6=True, labels={"a": "b"}, options={"o": "1"}, attachable=True))
    again = Catalog(paths)
    assert again.get("one") == one
    assert again.site() == catalog.site()
    assert [n.name for n in again.list()] == ["bridge", "host", "none", "one"]
    again.drop(one)
    with pytest.raises(NotFound):
        Catalog(paths).get("one")


def test_subnets_are_chosen_that_nobody_has(paths: Paths) -> None:
    catalog = Catalog(paths)
    taken = [ip_network("172.30.9.0/24")]
    first = catalog.design(NetworkRequest("a", ipv6=True), taken)
    catalog.keep(first)
    second = catalog.design(NetworkRequest("b", ipv6=True), taken)
    assert (first.subnet, first.gateway) == ("172.31.0.0/16", "172.31.0.1")
    assert second.subnet == "10.254.0.0/16"
    assert ip_network(first.subnet6).supernet(new_prefix=48) == ip_network(second.subnet6).supernet(new_prefix=48)
    assert first.subnet6 != second.subnet6


def test_references(paths: Paths) -> None:
    catalog = Catalog(paths)
    one = made(catalog, NetworkRequest("one"))
    assert catalog.get(one.id) == catalog.get(one.id[:12]) == catalog.get("one")
    assert catalog.get("default") == catalog.get("") == catalog.get("bridge")
    (paths.root / "networks.json").write_text(
        json.dumps({"networks": [{"id": "ab" * 32, "name": "x", "driver": "bridge", "created": ""},
                                 {"id": "ab" + "cd" * 31, "name": "y", "driver": "bridge", "created": ""}]})
    )  # fmt: skip
    with pytest.raises(Invalid, match=r"network ab is ambiguous \(2 matches found based on ID prefix\)"):
        Catalog(paths).get("ab")


def test_a_failed_write_changes_nothing(paths: Paths) -> None:
    catalog = Catalog(paths)
    one = made(catalog, NetworkRequest("one"))
    (paths.root / "networks.json").unlink()
    (paths.root / "networks.new").mkdir()
    with pytest.raises(OSError, match="networks"):
        catalog.drop(one)
    assert catalog.get("one") == one


@pytest.mark.parametrize("text", ["[]", "{}", "null", '{"networks": [1]}', '{"networks": [{"id": 1}]}'])
def test_a_file_that_makes_no_sense_is_told(paths: Paths, text: str) -> None:
    paths.root.mkdir()
    (paths.root / "networks.json").write_text(text)
    with pytest.raises(Broken, match="damaged"):
        Catalog(paths)


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (NetworkRequest("none"), Forbidden),
        (NetworkRequest("default"), Forbidden),
        (NetworkRequest("-x"), Invalid),
        (NetworkRequest("a\nb"), Invalid),
        (NetworkRequest("x", [IpamPool("10.0.0.0/24", "10.1.0.1")]), Invalid),
        (NetworkRequest("x", [IpamPool("10.0.0.0/24"), IpamPool("nonsense")]), Invalid),
        (NetworkRequest("x", [IpamPool("fd00::/64"), IpamPool("fd01::/64")], ipv6=True), Forbidden),
        (NetworkRequest("there"), Conflict),
    ],
)
def test_requests_that_can_not_be_met(paths: Paths, request_: NetworkRequest, error: type[Exception]) -> None:
    catalog = Catalog(paths)
    made(catalog, NetworkRequest("there"))
    with pytest.raises(error):
        catalog.design(request_, [])
    assert len(catalog.list()) == 4


def lease(name: str, *, priority: int = 0, gateway: str = "10.0.0.1", gateway6: str = "") -> Lease:
    return Lease("w", name, name, "10.0.0.2/24", gateway, "", "b", "l", priority=priority, gateway6=gateway6)


def test_which_network_leads_out() -> None:
    one, two, six, inner = lease("b"), lease("a"), lease("c", gateway6="fd00::1"), lease("0", gateway="")
    assert way_out([]) is None
    assert way_out([inner]) is None
    assert way_out([one, inner, two]) is two
    assert way_out([one, two, six]) is six
    assert way_out([one, two], 6) is None
    assert way_out([one, six, two, first := lease("z", priority=1)]) is first
    assert way_out([one, six, first], 6) is six
