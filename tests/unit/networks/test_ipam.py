"""Addresses: which subnet, which address, when it comes again."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothy.errors import Conflict, Invalid, Unavailable
from bothy.networks.ipam import Pool, candidates, choose_subnet, mac_of, parse_subnet


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
    pool.give_back(first[0])
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
            pool.give_back(held.pop(0))


def test_an_address_of_ones_choice() -> None:
    pool = Pool(IPv4Network("10.0.0.0/24"))
    pool.claim("10.0.0.9", "a" * 64)
    pool.claim("10.0.0.9", "a" * 64)
    with pytest.raises(Conflict, match="already in use by aaaaaaaaaaaa"):
        pool.claim("10.0.0.9", "b" * 64)
    with pytest.raises(Conflict, match="the gateway"):
        pool.claim("10.0.0.1", "b" * 64)
    for wrong in ("10.0.1.9", "10.0.0.255", "10.0.0.0", "nonsense"):
        with pytest.raises(Invalid):
            pool.claim(wrong, "b" * 64)
    assert pool.take("c") == "10.0.0.10"
    pool.give_back("10.0.0.1")
    with pytest.raises(Conflict):
        pool.claim("10.0.0.1", "d")


def test_subnets_that_people_give() -> None:
    assert str(parse_subnet("10.1.2.3/24")) == "10.1.2.0/24"
    for wrong in ("10.1.2.3/30", "fd00::/64", "x", "10.0.0.0/99"):
        with pytest.raises(Invalid):
            parse_subnet(wrong)


def test_the_hardware_address_follows_the_address() -> None:
    assert mac_of("172.30.0.2") == "02:42:ac:1e:00:02"
