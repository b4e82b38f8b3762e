"""Tar headers: what the standard library writes is read, and nonsense is refused without harm."""

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothy.tar import headers
from bothy.tar.headers import Damaged, Entry


def header_of(**fields) -> bytes:
    info = tarfile.TarInfo(fields.pop("name", "a"))
    for key, value in fields.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.GNU_FORMAT)[-512:]


@given(
    st.integers(0, 0o7777), st.integers(0, 2**31), st.integers(0, 2**31), st.integers(0, 2**62), st.integers(-(2**30), 2**32)
)  # fmt: skip
def test_numbers_of_the_standard_library_are_read(mode, uid, gid, size, mtime):
    entry = Entry(header_of(mode=mode, uid=uid, gid=gid, size=size, mtime=mtime))
    assert (entry.mode, entry.uid, entry.gid, entry.size, entry.mtime) == (mode, uid, gid, size, mtime * 10**9)


@given(st.binary(min_size=512, max_size=512))
def test_any_block_is_an_entry_or_refused(block):
    try:
        headers.checksum_is_right(block)
        entry = Entry(block)
    except Damaged:
        return
    assert b"\0" not in entry.name
    assert abs(entry.size) <= headers.MAX_NUMBER


def test_a_changed_header_fails_its_checksum():
    block = header_of()
    assert headers.checksum_is_right(block)
    assert not headers.checksum_is_right(b"b" + block[1:])


def test_signed_checksums_of_old_tars_are_accepted():
    block = bytearray(header_of(name="\xe4\xe4"))
    signed = sum(b - 256 if b > 127 else b for b in block[:148] + b" " * 8 + block[156:])
    block[148:156] = b"%06o\0 " % signed
    assert headers.checksum_is_right(bytes(block))


pax_text = st.binary(max_size=50).filter(lambda value: b"\n" not in value)


@given(st.dictionaries(st.from_regex(rb"\A[a-zA-Z.]{1,12}\Z"), pax_text, max_size=5))
def test_extended_headers_are_read_back(records):
    data = b""
    for key, value in records.items():
        body = b" " + key + b"=" + value + b"\n"
        length = len(body) + 1
        while len(str(length)) + len(body) != length:
            length += 1
        data += str(length).encode() + body
    assert headers.parse_pax(data) == records


@given(st.binary(max_size=200))
def test_any_extended_header_is_read_or_refused(data):
    try:
        records = headers.parse_pax(data)
    except Damaged:
        return
    assert sum(len(key) + len(value) for key, value in records.items()) <= len(data)


def test_values_with_newlines_are_whole():
    assert headers.parse_pax(b"12 path=a\nb\n") == {b"path": b"a\nb"}


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        (b"0", 0),
        (b"1.5", 1_500_000_000),
        (b"-1.5", -1_500_000_000),
        (b"12.123456789123", 12_123_456_789),
        (b"9" * 11, (1 << 33) * 10**9),
    ],
)
def test_times(text, nanoseconds):
    assert headers.nanoseconds(text) == nanoseconds


@pytest.mark.parametrize("text", [b"x", b"1.x", b"1e3", b"9" * 12, b"--1.2.3"])
def test_times_that_are_none(text):
    with pytest.raises(Damaged):
        headers.nanoseconds(text)


def test_a_pax_name_with_a_zero_byte_is_refused():
    entry = Entry(header_of())
    with pytest.raises(Damaged, match="zero byte"):
        headers.apply_pax(entry, {b"path": b"a\0b"})


def test_old_directories_and_prefixes():
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("x" * 90 + "/" + "y" * 90))
    assert Entry(archive.getvalue()[:512]).name == b"x" * 90 + b"/" + b"y" * 90
