"""Messages: what we write is what dnspython reads, and nothing that a stranger writes is more than refused."""

from __future__ import annotations

import dns.edns
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdatatype
import dns.reversename
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothy.networks.dns import message
from bothy.networks.dns.message import Query

A, AAAA, PTR = message.A, message.AAAA, message.PTR
_LABEL = st.text("abcXYZ0189-_", min_size=1, max_size=63)
_NAME = st.lists(_LABEL, min_size=1, max_size=4).filter(lambda labels: sum(map(len, labels)) + len(labels) < 250).map(".".join)


def asked(name: str, kind: str = "A", **options: object) -> bytes:
    return dns.message.make_query(name, kind, **options).to_wire()  # type: ignore[arg-type]


def query(name: str, kind: str = "A", **options: object) -> tuple[bytes, Query]:
    data = asked(name, kind, **options)
    read = message.read(data)
    assert isinstance(read, Query)
    return data, read


def test_a_question_is_read_whatever_its_case() -> None:
    _, read = query("Web.MyNet", "AAAA")
    assert (read.name, read.kind, read.edns, read.limit) == (b"\3web\5mynet\0", AAAA, False, 512)


@pytest.mark.parametrize(("payload", "limit"), [(0, 512), (512, 512), (1000, 1000), (65535, 1232)])
def test_a_client_says_how_much_it_takes(payload: int, limit: int) -> None:
    _, read = query("web", use_edns=0, payload=payload)
    assert (read.edns, read.limit) == (True, limit)


@given(_NAME, st.lists(st.binary(min_size=4, max_size=4), max_size=20), st.booleans())
def test_what_is_written_is_read_by_others(name: str, addresses: list[bytes], edns: bool) -> None:
    data, read = query(name, use_edns=0 if edns else None)
    records = [message.record(A, address) for address in addresses]
    answer = dns.message.from_wire(message.answer(data, read, message.NOERROR, records))
    assert answer.id == int.from_bytes(data[:2], "big")
    assert dns.message.from_wire(data).is_response(answer)
    assert answer.flags & (dns.flags.QR | dns.flags.AA | dns.flags.RA | dns.flags.RD) == 0x8580
    assert (answer.edns >= 0) == edns
    found = [message.pack(str(record)) for rrset in answer.answer for record in rrset]
    assert sorted(found) == sorted(set(addresses))
    assert all(rrset.ttl == 0 for rrset in answer.answer)


def test_what_does_not_fit_is_left_out_and_it_is_said() -> None:
    data, read = query("web", use_edns=0, payload=600)
    records = [message.record(A, bytes((10, 0, 0, n))) for n in range(100)]
    answer = message.answer(data, read, message.NOERROR, records, read.limit)
    assert len(answer) <= 600
    told = dns.message.from_wire(answer)
    assert told.flags & dns.flags.TC
    assert len(told.answer[0]) == 35
    whole = dns.message.from_wire(message.answer(data, read, message.NOERROR, records))
    assert not whole.flags & dns.flags.TC
    assert len(whole.answer[0]) == 100


def test_a_failure_is_nobodys_last_word() -> None:
    data, read = query("nosuch.example", use_edns=0)
    told = dns.message.from_wire(message.failure(data, read, message.SERVFAIL))
    assert told.rcode() == dns.rcode.SERVFAIL
    assert not told.flags & dns.flags.AA


def _changed(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + bytes((value,)) + data[at + 1 :]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (_changed(asked("web"), 2, 0x21), dns.rcode.NOTIMP),  # a NOTIFY
        (_changed(asked("web"), 5, 2), dns.rcode.FORMERR),  # two questions
        (_changed(asked("web"), 5, 0), dns.rcode.FORMERR),
        (_changed(asked("web"), 7, 1), dns.rcode.FORMERR),  # a query with an answer in it
        (_changed(asked("web"), 12, 0xC0), dns.rcode.FORMERR),  # a name that refers to itself
        (_changed(asked("web"), 12, 200), dns.rcode.FORMERR),
        (asked("web")[:-1], dns.rcode.FORMERR),
        (asked("web")[:12], dns.rcode.FORMERR),
        (asked("web", "AXFR"), dns.rcode.REFUSED),
        (asked("version.bind", "TXT", rdclass="CH"), dns.rcode.REFUSED),
    ],
)
def test_what_is_no_question_for_us_is_refused(data: bytes, code: int) -> None:
    refused = message.read(data)
    assert isinstance(refused, bytes)
    assert dns.message.from_wire(refused, ignore_trailing=True).rcode() == code
    assert len(refused) <= len(data)


def test_an_edns_of_the_future_is_refused_by_its_own_code() -> None:
    refused = message.read(asked("web", use_edns=1))
    assert isinstance(refused, bytes)
    told = dns.message.from_wire(refused)
    assert (told.rcode(), told.edns) == (dns.rcode.BADVERS, 0)


def test_what_deserves_no_answer_gets_none() -> None:
    assert message.read(b"") is None
    assert message.read(b"\0" * 11) is None
    data, read = query("web")
    assert message.read(message.answer(data, read, message.NOERROR)) is None


@given(st.binary(max_size=600))
def test_nothing_that_a_stranger_sends_is_too_much(data: bytes) -> None:
    read = message.read(data)
    assert read is None or (isinstance(read, bytes) and len(read) <= len(data) + 11) or isinstance(read, Query)


@given(_NAME, st.sampled_from(["A", "AAAA", "PTR", "MX"]), st.data())
def test_nor_is_a_damaged_query(name: str, kind: str, draw: st.DataObject) -> None:
    data = bytearray(asked(name, kind, use_edns=0))
    for _ in range(draw.draw(st.integers(1, 4))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    read = message.read(bytes(data[: draw.draw(st.integers(0, len(data)))]))
    if isinstance(read, Query):
        message.address_of(read.name)
        assert message.answer(bytes(data), read, message.NOERROR, [message.record(A, b"1234")])


@given(st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16)))
def test_addresses_have_reverse_names(address: bytes) -> None:
    name = dns.reversename.from_address(message.unpack(address)).to_text()
    assert message.reverse(address) == message.encode(name)
    assert message.address_of(message.encode(name)) == address


@pytest.mark.parametrize(
    "name",
    ["1.2.3.in-addr.arpa", "x.2.3.4.in-addr.arpa", "300.2.3.4.in-addr.arpa", "in-addr.arpa", "web", "g" + ".0" * 31 + ".ip6.arpa"],
)
def test_other_names_have_no_address(name: str) -> None:
    assert message.address_of(message.encode(name)) is None


@pytest.mark.parametrize("name", ["", ".", "a..b", "x" * 64, ".".join(["x" * 60] * 5)])
def test_what_is_no_name_is_not_written(name: str) -> None:
    with pytest.raises(ValueError, match="is not a name"):
        message.encode(name)


def test_an_answer_belongs_to_its_question() -> None:
    data, read = query("Web.example")
    good = message.answer(data, read, message.NOERROR)
    other, _ = query("web.example", "AAAA")
    assert message.answers(good, data)
    assert message.answers(good[:12] + good[12:].lower(), data)
    assert not message.answers(_changed(good, 0, good[0] ^ 1), data)
    assert not message.answers(data, data)
    assert not message.answers(good, data[:2] + other[2:])
    assert not message.answers(good[:11], data)
    assert message.answers(message.refusal(data, message.REFUSED), data)
    assert not message.answers(message.refusal(data, message.NOERROR), data)
