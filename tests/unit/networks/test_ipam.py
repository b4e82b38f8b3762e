"""Addresses: which subnet, which address, when it comes again."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Network
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothy.errors import Conflict, Invalid, Unavailable
from bothy.networks.ipam import Pool, candidates, check, choose_subnet, choose_subnet6, mac_of, new_site


def nets(*texts: str) -> list[IPv4Network]:
    return [IPv4Network(text) for text in texts]


def test_the_first_subnet_is_172_30_unless_it_is_taken() -> None:
    assert str(choose_subnet([])) == "172.30.0.0/16"
    assert str(choose_subnet(nets("172.30.5.0/24"))) == "172.31.0.0/16"
    assert str(choose_subnet(nets("172.16.0.0/12"))) == "10.254.0.0/16"
    with pytest.raises(Unavailable):
        choose_subnet(nets("172.16.0.0/12", "10.0.0.0/8"))


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(8, 32)), max_size=20))
def test_the_choice_overlaps_nothing(taken: list[tuple[int, int]]) -> None:
    used = [IPv4Network((number, length), strict=False) for number, length in taken]
    try:
        chosen = choose_subnet(used)
    except Unavailable:
        assert all(any(c.overlaps(u) for u in used) for c in candidates())
    else:
        assert not any(chosen.overlaps(u) for u in used)


def test_addresses_come_again_as_late_as_can_be() -> None:
    pool = Pool(IPv4Network("10.0.0.0/29"))
    first = [pool.take(str(n)) for n in range(3)]
    assert first == ["10.0.0.2", "10.0.0.3", "10.0.0.4"]
    pool.give_back(first[0], "0")
    assert [pool.take("x"), pool.take("x"), pool.take("x")] == ["10.0.0.5", "10.0.0.6", "10.0.0.2"]
    with pytest.raises(Unavailable, match="no free address"):
        pool.take("y")


@given(st.lists(st.booleans(), max_size=200))
def test_no_two_have_the_same_address(steps: list[bool]) -> None:
    pool, held = Pool(IPv4Network("10.0.0.0/27")), list[str]()
    for take in steps:
        if take and len(held) < 29:
            address = pool.take("someone")
            assert address not in held
            assert IPv4Address(address) in pool.subnet
            assert address not in ("10.0.0.0", "10.0.0.1", "10.0.0.31")
            held.append(address)
        elif held:
            pool.give_back(held.pop(0), "someone")


def test_an_address_of_ones_choice() -> None:
    pool = Pool(IPv4Network("10.0.0.0/24"))
    pool.claim("10.0.0.9", "a" * 64)
    pool.claim("10.0.0.9", "a" * 64)
    with pytest.raises(Conflict, match="Address already in use: workload aaaaaaaaaaaa has it"):
        pool.claim("10.0.0.9", "b" * 64)
    with pytest.raises(Conflict, match="the gateway"):
        pool.claim("10.0.0.1", "b" * 64)
    for wrong in ("10.0.1.9", "10.0.0.255", "10.0.0.0", "nonsense"):
        with pytest.raises(Invalid):
            pool.claim(wrong, "b" * 64)
    assert pool.take("c") == "10.0.0.10"
    pool.give_back("10.0.0.1", "b" * 64)
    with pytest.raises(Conflict):
        pool.claim("10.0.0.1", "d")


def test_addresses_come_from_the_range_and_spare_the_auxiliary_ones() -> None:
    pool = Pool(IPv4Network("10.0.0.0/24"), "10.0.0.9", "10.0.0.8/29", ["10.0.0.8", "10.0.0.200"])
    assert [pool.take("x") for _ in range(6)] == [f"10.0.0.{n}" for n in (10, 11, 12, 13, 14, 15)]
    with pytest.raises(Unavailable):
        pool.take("x")
    pool.claim("10.0.0.77", "y")  # outside of the range, of one's own choice
    with pytest.raises(Conflict, match="auxiliary"):
        pool.claim("10.0.0.200", "y")
    pool.give_back("10.0.0.12", "y")  # not its own
    pool.give_back("10.0.0.12", "x")
    assert pool.take("y") == "10.0.0.12"


def test_a_pool_of_ipv6() -> None:
    pool = Pool(IPv6Network("fd00:1::/64"))
    assert (pool.gateway, pool.take("a"), pool.take("b"), pool.cidr) == ("fd00:1::1", "fd00:1::2", "fd00:1::3", 64)
    pool.claim("fd00:1:0:0:ffff:ffff:ffff:ffff", "c")
    for wrong in ("10.0.0.1", "fd00:2::1", "fd00:1::"):
        with pytest.raises(Invalid):
            pool.claim(wrong, "d")


@given(st.integers(0, 2**120), st.integers(100, 126), st.integers(0, 300))
def test_a_pool_gives_all_that_it_has(base: int, length: int, count: int) -> None:
    subnet = IPv6Network((base, length), strict=False)
    pool = Pool(subnet)
    there = min(count, subnet.num_addresses - 2)
    assert len({pool.take("x") for _ in range(there)}) == there


def test_an_engine_has_ipv6_subnets_of_its_own() -> None:
    site = new_site()
    assert IPv6Network(site).subnet_of(IPv6Network("fd00::/8"))
    assert IPv6Network(site).prefixlen == 48
    first = choose_subnet6(site, [])
    assert first.subnet_of(IPv6Network(site))
    assert choose_subnet6(site, [first, IPv4Network("10.0.0.0/8")]) == next(islice(IPv6Network(site).subnets(new_prefix=64), 1, 2))
    assert new_site() != site


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("10.1.2.3/24",), "invalid subnet 10.1.2.3/24: it should be 10.1.2.0/24"),
        (("x",), "invalid subnet x: invalid CIDR block notation"),
        (("10.0.0.0",), "invalid subnet 10.0.0.0: invalid CIDR block notation"),
        (("10.0.0.0/99",), "invalid subnet 10.0.0.0/99: invalid CIDR block notation"),
        (("10.0.0.0/31",), "invalid subnet 10.0.0.0/31: it is too small"),
        (("10.0.0.0/24", "10.0.1.1"), "invalid gateway 10.0.1.1: parent subnet 10.0.0.0/24 doesn't contain this address"),
        (("10.0.0.0/24", "fd00::1"), "invalid gateway fd00::1: parent subnet is an IPv4 block"),
        (("10.0.0.0/24", "one"), "invalid gateway one: invalid address"),
        (("10.0.0.0/24", "", "10.0.1.0/25"), "invalid ip-range 10.0.1.0/25: parent subnet 10.0.0.0/24 doesn't contain ip-range"),
        (
            ("10.0.0.0/24", "", "10.0.0.0/16"),
            "invalid ip-range 10.0.0.0/16: CIDR block is bigger than its parent subnet 10.0.0.0/24",
        ),
        (("10.0.0.0/24", "", "10.0.0.1/25"), "invalid ip-range 10.0.0.1/25: it should be 10.0.0.0/25"),
        (("10.0.0.0/24", "", "fd00::/64"), "invalid ip-range fd00::/64: parent subnet is an IPv4 block"),
        (("10.0.0.0/24", "", "", {"a": "10.0.9.1"}), "invalid auxiliary address a: 10.0.9.1: parent subnet 10.0.0.0/24 doesn't"),
    ],
)
def test_subnets_that_make_no_sense_are_told_in_dockers_words(words: tuple[Any, ...], problem: str) -> None:
    with pytest.raises(Invalid) as refusal:
        check(*words)
    assert refusal.value.message.startswith(f"invalid network config:\n{problem}")


def test_subnets_that_people_give() -> None:
    assert str(check("10.1.2.0/24", "10.1.2.3", "10.1.2.128/25", {"a": "10.1.2.5"})) == "10.1.2.0/24"
    assert str(check("fd00:0::/64", "fd00::9")) == "fd00::/64"


def test_the_hardware_address_follows_the_address() -> None:
    assert mac_of("172.30.0.2") == "02:42:ac:1e:00:02"
