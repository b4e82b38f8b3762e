"""Which of a workload's ports a choice is about."""

from __future__ import annotations

import pytest

from bothy.engine.containers.connecting import heirs
from bothy.engine.containers.links import parts
from bothy.engine.containers.publishing import PortChoice, is_chosen
from bothy.engine.model import PublishedPort
from bothy.engine.ports import Publication
from bothy.linux.links import Attachment, Interface, Route

LIVE = PublishedPort(80, "tcp", "0.0.0.0", 49200)


@pytest.mark.parametrize(
    ("choice", "fits"),
    [
        (PortChoice(80), True),
        (PortChoice(81), False),
        (PortChoice(80, "udp"), False),
        (PortChoice(80, "tcp", "127.0.0.1"), False),
        (PortChoice(80, "tcp", "0.0.0.0", 49200), True),
        (PortChoice(80, host_port=49201), False),
    ],
)
def test_ports_that_are_published(choice: PortChoice, fits: bool) -> None:
    assert choice.fits(LIVE) is fits


@pytest.mark.parametrize(
    ("choice", "asked", "chosen"),
    [
        (PortChoice(80), Publication(80, "tcp"), True),
        (PortChoice(80), Publication(80, "udp"), False),
        (PortChoice(80, host_port=8080), Publication(80, "tcp", "", 8080, 8080), True),
        (PortChoice(80, host_port=8080), Publication(80, "tcp", "", 8000, 8100), True),
        (PortChoice(80, host_port=8080), Publication(80, "tcp", "", 8081, 8081), False),
        (PortChoice(80, host_port=49200), Publication(80, "tcp"), True),  # any port, which came to be this one
        (PortChoice(80, host_port=49201), Publication(80, "tcp"), False),
        (PortChoice(80, host_ip="127.0.0.1"), Publication(80, "tcp", "10.0.0.1", 80, 80), False),
        (PortChoice(80, host_ip="127.0.0.1"), Publication(80, "tcp", "127.0.0.1", 80, 80), True),
    ],
)
def test_ports_that_were_asked_for(choice: PortChoice, asked: Publication, chosen: bool) -> None:
    assert is_chosen(choice, asked, [LIVE]) is chosen


def attachment(name: str, *gateways: str) -> Attachment:
    return Attachment(Interface(name, "", [], [Route("default", gateway) for gateway in gateways]), f"by-{name}", "b")


def test_who_gets_a_default_route_when_another_goes() -> None:
    before = [attachment("eth0", "10.0.0.1", "fd00::1"), attachment("eth1"), attachment("eth2")]
    after = [attachment("eth1", "10.1.0.1"), attachment("eth2", "fd02::1")]
    assert [(i.name, [r.gateway for r in i.routes]) for i in heirs(before, after)] == [
        ("eth1", ["10.1.0.1"]),
        ("eth2", ["fd02::1"]),
    ]
    assert heirs(before, [attachment("eth0", "10.0.0.1", "fd00::1")]) == []


def test_how_links_are_written() -> None:
    assert [parts(text) for text in ("db", "db:alias", "/db:/web/alias")] == [("db", "db"), ("db", "alias"), ("db", "alias")]
