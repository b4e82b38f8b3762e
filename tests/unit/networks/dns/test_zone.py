"""What a name is to whom: several networks, aliases, reverse names, names of the host, and how much is remembered."""

from __future__ import annotations

from typing import Any

import dns.message
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothy.networks.dns import message, zone
from bothy.networks.dns.message import Query
from bothy.networks.dns.zone import Client, Zone

FRONT = {
    "id": "f",
    "name": "front",
    "gateways": ["172.30.0.1", "fd00::1"],
    "subnets": ["172.30.0.0/16", "fd00::/64"],
    "internal": False,
}
BACK = {"id": "b", "name": "back.end", "gateways": ["172.31.0.1"], "subnets": ["172.31.0.0/16"], "internal": True}


def endpoint(network: str, addresses: list[str], *names: str) -> dict[str, Any]:
    return {"network": network, "addresses": addresses, "names": list(names)}


@pytest.fixture
def house() -> Zone:
    """web is on both networks, db on the inner one, two workers share an alias."""
    house = Zone()
    house.put_network(FRONT)
    house.put("w", {"endpoints": [endpoint("f", ["172.30.0.2", "fd00::2"], "web", "www"), endpoint("b", ["172.31.0.2"], "web")]})
    house.put("d", {"endpoints": [endpoint("b", ["172.31.0.3"], "db", "DB-Main")], "servers": ["192.0.2.1"]})
    house.put_network(BACK)
    for n in (4, 5):
        house.put(f"x{n}", {"endpoints": [endpoint("f", [f"172.30.0.{n}"], f"x{n}", "worker")]})
    return house


def who(house: Zone, network: str, source: str) -> Client:
    client = house.client(house.networks[network], source)
    assert client is not None
    return client


def ask(house: Zone, client: Client, name: str, kind: str = "A") -> list[str] | int | None:
    """The records' text; the code if it is an error; None for a name that is asked for elsewhere."""
    data = dns.message.make_query(name, kind).to_wire()
    query = message.read(data)
    assert isinstance(query, Query)
    answer = house.answer(client, data, query)
    whole = house.whole(client, data, query)
    assert (answer is None) == (whole is None)
    if answer is None:
        return None
    told = dns.message.from_wire(answer)
    return [str(r) for rrset in told.answer for r in rrset] if told.rcode() == dns.rcode.NOERROR else int(told.rcode())


def test_names_on_the_same_network(house: Zone) -> None:
    client = who(house, "f", "172.30.0.4")
    assert ask(house, client, "web") == ["172.30.0.2"]
    assert ask(house, client, "WEB") == ["172.30.0.2"]
    assert ask(house, client, "www", "AAAA") == ["fd00::2"]
    assert ask(house, client, "web.front") == ["172.30.0.2"]
    assert ask(house, client, "web", "ANY") == ["172.30.0.2", "fd00::2"]


def test_a_name_without_an_address_of_that_kind_exists_nevertheless(house: Zone) -> None:
    client = who(house, "f", "172.30.0.4")
    assert ask(house, client, "x4", "AAAA") == []
    assert ask(house, client, "x4", "MX") == []


def test_names_of_other_networks_are_not_told(house: Zone) -> None:
    client = who(house, "f", "172.30.0.4")
    assert ask(house, client, "db") is None
    assert ask(house, client, "db.back.end") is None
    assert ask(house, client, "3.0.31.172.in-addr.arpa", "PTR") is None


@pytest.mark.parametrize(("network", "source"), [("f", "172.30.0.2"), ("b", "172.31.0.2"), ("f", "fd00::2")])
def test_who_is_on_two_networks_sees_both_by_either_gateway(house: Zone, network: str, source: str) -> None:
    client = who(house, network, source)
    assert ask(house, client, "x4") == ["172.30.0.4"]
    assert ask(house, client, "db") == ["172.31.0.3"]
    assert ask(house, client, "web") == ["172.30.0.2"]
    assert ask(house, client, "web.back.end") == ["172.31.0.2"]
    assert ask(house, client, "example.com") is None


def test_an_internal_network_is_the_whole_world(house: Zone) -> None:
    client = who(house, "b", "172.31.0.3")
    assert client.servers == ["192.0.2.1"]
    assert ask(house, client, "web") == ["172.31.0.2"]
    assert ask(house, client, "db-main") == ["172.31.0.3"]
    assert ask(house, client, "example.com") == dns.rcode.NXDOMAIN
    assert ask(house, client, "host.docker.internal") == dns.rcode.NXDOMAIN
    assert ask(house, client, "8.8.8.8.in-addr.arpa", "PTR") == dns.rcode.NXDOMAIN


def test_a_shared_name_takes_turns(house: Zone) -> None:
    client = who(house, "f", "172.30.0.2")
    data = dns.message.make_query("worker", "A").to_wire()
    query = message.read(data)
    assert isinstance(query, Query)
    first = house.answer(client, data, query)
    assert first is not None
    turns = [first, *(data[:2] + next(client.kept[data[2:]]) for _ in range(3))]
    order = [[str(r) for r in dns.message.from_wire(turn).answer[0]] for turn in turns]
    assert order[0] == order[2] == ["172.30.0.4", "172.30.0.5"]
    assert order[1] == order[3] == ["172.30.0.5", "172.30.0.4"]


def test_reverse_names(house: Zone) -> None:
    client = who(house, "f", "172.30.0.2")
    assert ask(house, client, "2.0.30.172.in-addr.arpa", "PTR") == ["web.front."]
    assert ask(house, client, "3.0.31.172.in-addr.arpa", "PTR") == ["db.back.end."]
    assert ask(house, client, "2.0.30.172.in-addr.arpa", "A") == []
    assert ask(house, client, "9.0.30.172.in-addr.arpa", "PTR") == dns.rcode.NXDOMAIN
    assert ask(house, client, "8.8.8.8.in-addr.arpa", "PTR") is None


@pytest.mark.parametrize("name", zone.HOST_NAMES)
def test_the_host_has_names(house: Zone, name: str) -> None:
    client = who(house, "f", "172.30.0.4")
    assert ask(house, client, name) == ["172.30.0.1"]
    assert ask(house, client, name, "AAAA") == ["fd00::1"]


def test_a_workload_may_take_the_hosts_name(house: Zone) -> None:
    house.put("m", {"endpoints": [endpoint("f", ["172.30.0.9"], "host.docker.internal")]})
    assert ask(house, who(house, "f", "172.30.0.4"), "host.docker.internal") == ["172.30.0.9"]


def test_who_does_not_belong_to_a_network_is_no_client_of_it(house: Zone) -> None:
    for source in ("172.31.0.2", "10.0.0.1", "fd01::2", "fe80::1%eth0", "127.0.0.1"):
        assert house.client(house.networks["f"], source) is None


def test_an_address_that_no_workload_told_sees_its_network_only(house: Zone) -> None:
    client = who(house, "f", "172.30.77.7")
    assert client.networks == [house.networks["f"]]
    assert ask(house, client, "web") == ["172.30.0.2"]


def test_a_change_is_seen_at_once(house: Zone) -> None:
    client = who(house, "f", "172.30.0.4")
    assert ask(house, client, "web") == ["172.30.0.2"]
    assert client.kept
    house.put("w", {"endpoints": [endpoint("f", ["172.30.0.7"], "web")]})
    assert not client.kept
    assert not house.networks["f"].clients
    client = who(house, "f", "172.30.0.4")
    assert ask(house, client, "web") == ["172.30.0.7"]
    assert ask(house, client, "www") is None
    house.put("w", None)
    assert ask(house, who(house, "f", "172.30.0.4"), "web") is None


def test_nothing_is_left_of_what_went(house: Zone) -> None:
    for name in ("w", "d", "x4", "x5", "never"):
        house.put(name, None)
    assert all(not network.names and not network.owners for network in house.networks.values())
    house.drop_network("f")
    assert list(house.networks) == ["b"]


def test_an_address_that_has_a_new_owner_stays_its_own(house: Zone) -> None:
    house.put("n", {"endpoints": [endpoint("f", ["172.30.0.4"], "next")]})
    house.put("x4", None)
    assert ask(house, who(house, "f", "172.30.0.2"), "4.0.30.172.in-addr.arpa", "PTR") == ["next.front."]


@pytest.mark.parametrize("told", [{}, [], {"endpoints": 1}, {"endpoints": [{}]}, {"endpoints": [endpoint("f", ["x"], "a")]}])
def test_a_file_that_makes_no_sense_takes_the_names_away(house: Zone, told: Any) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        house.put("w", told)
    assert ask(house, who(house, "f", "172.30.0.4"), "web") is None


def test_names_that_can_not_be_asked_for_are_passed_over(house: Zone) -> None:
    house.put("m", {"endpoints": [endpoint("f", ["172.30.0.9"], "a..b", "", "x" * 64, "fine")]})
    assert ask(house, who(house, "f", "172.30.0.4"), "fine") == ["172.30.0.9"]
    assert ask(house, who(house, "f", "172.30.0.4"), "9.0.30.172.in-addr.arpa", "PTR") == ["fine.front."]


def test_what_is_remembered_for_strangers_is_bounded(house: Zone) -> None:
    data = dns.message.make_query("web", "A").to_wire()
    for number in range(4000):
        client = who(house, "f", f"172.30.{number >> 8}.{number & 255}")
        query = message.read(data)
        assert isinstance(query, Query)
        for extra in range(3):
            assert house.answer(client, data + bytes(extra * 100), query)
    assert sum(len(client.kept) for client in house.networks["f"].clients.values()) * 100 < zone.ROOM


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["1", "2", None]), st.sampled_from(["f", "b"])), max_size=20))
def test_comings_and_goings_leave_what_is_there_now(steps: list[tuple[str, str | None, str]]) -> None:
    house = Zone()
    house.put_network(FRONT)
    house.put_network(BACK)
    there: dict[str, tuple[str, str]] = {}
    for name, address, network in steps:
        if address is None:
            house.put(name, None)
            there.pop(name, None)
        else:
            base = "172.30.0." if network == "f" else "172.31.0."
            house.put(name, {"endpoints": [endpoint(network, [base + address], name, "all")]})
            there[name] = (network, base + address)
    for network in ("f", "b"):
        known = house.networks[network].names
        expected = {name for name, (on, _) in there.items() if on == network}
        assert set(known) == {message.encode(name) for name in expected} | ({message.encode("all")} if expected else set())
