"""resolv.conf and hosts."""

from __future__ import annotations

import pytest

from bothy.errors import Invalid
from bothy.networks.names import hosts, nameservers, resolv_conf

HOST = "# made by hand\nnameserver 127.0.0.53\nnameserver 10.0.0.1\nnameserver ::1\nnameserver fe80::1%eth0\nsearch a.example b.example\noptions ndots:2\n"


def test_servers_that_only_the_host_reaches_are_left_out() -> None:
    assert resolv_conf(HOST) == "nameserver 10.0.0.1\nsearch a.example b.example\noptions ndots:2\n"


def test_what_is_given_takes_the_place_of_the_hosts() -> None:
    text = resolv_conf(HOST, servers=["127.0.0.1", "1.1.1.1"], search=["."], options=["edns0"])
    assert text == "nameserver 127.0.0.1\nnameserver 1.1.1.1\noptions edns0\n"
    with pytest.raises(Invalid, match="dns\\.example"):
        resolv_conf(HOST, servers=["dns.example"])


def test_where_our_own_server_is_nobody_else_is_asked() -> None:
    gateways = ["172.30.0.1", "172.31.0.1", "10.254.0.1", "10.253.0.1"]
    text = resolv_conf(HOST, servers=["1.1.1.1"], gateways=gateways)
    assert nameservers(text) == gateways[:3]
    assert "search a.example b.example\noptions ndots:2\n" in text
    assert resolv_conf("", gateways=gateways[:1]) == "nameserver 172.30.0.1\noptions ndots:0\n"
    assert "options edns0 ndots:0\n" in resolv_conf("", gateways=gateways, options=["edns0"])
    with pytest.raises(Invalid, match="dns\\.example"):
        resolv_conf(HOST, servers=["dns.example"], gateways=gateways)


@pytest.mark.parametrize("host", ["", "nameserver 127.0.0.1\n", "nameserver\n", "nameserver nonsense\n", "domain\n"])
def test_without_a_server_there_is_a_comment(host: str) -> None:
    text = resolv_conf(host)
    assert nameservers(text) == []
    assert text.startswith("# no nameserver")


def test_a_later_search_wins_over_an_earlier_domain() -> None:
    assert "search two\n" in resolv_conf("domain one\nsearch two\n")


def test_hosts() -> None:
    text = hosts([("172.30.0.2", ["web", "abc"])], ["db:10.0.0.9", "up=host-gateway", "six:[fd00::1]"], "172.30.0.1")
    assert text.startswith("127.0.0.1\tlocalhost\n")
    assert text.endswith("172.30.0.2\tweb abc\n10.0.0.9\tdb\n172.30.0.1\tup\nfd00::1\tsix\n")


@pytest.mark.parametrize(
    "entry", ["nonsense", "db:", ":10.0.0.1", "db:ten", "up:host-gateway", "a b:10.0.0.1", "x:10.0.0.1\n6.6.6.6 bank"]
)
def test_entries_that_are_none(entry: str) -> None:
    with pytest.raises(Invalid):
        hosts([], [entry])
