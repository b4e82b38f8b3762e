from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothy.api import frames

parts = st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=200)))


@given(parts, st.integers(1, 50))
def test_frames_survive_any_cut(sent, cut):
    wire = b"".join(frames.encode(stream, data) for stream, data in sent)
    decoder = frames.Decoder()
    got: list[tuple[int, bytes]] = []
    for at in range(0, len(wire), cut):
        got += decoder.feed(wire[at : at + cut])
    assert decoder.is_between
    for stream in range(4):
        assert b"".join(d for s, d in got if s == stream) == b"".join(d for s, d in sent if s == stream)


def test_parts_come_before_their_frame_ends():
    decoder = frames.Decoder()
    assert decoder.feed(frames.encode(1, b"abcd")[:10]) == [(1, b"ab")]
    assert not decoder.is_between


@pytest.mark.parametrize("head", [b"HTTP/1.1", b"\x04\0\0\0\0\0\0\1", b"\1\0\1\0\0\0\0\1"])
def test_what_is_no_frame_is_refused(head):
    with pytest.raises(frames.FrameError):
        frames.Decoder().feed(head)
