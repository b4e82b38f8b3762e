from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothy.machines import wire
from bothy.machines.wire import Frame


@given(st.lists(st.tuples(st.integers(0, 0xFFFF), st.binary(max_size=200)), max_size=10), st.integers(1, 50))
def test_frames_survive_any_cut(frames: list[tuple[int, bytes]], piece: int) -> None:
    stream = b"".join(wire.encode(wire.DATA, number, data) for number, data in frames)
    decoder = wire.Decoder()
    found = [frame for at in range(0, len(stream), piece) for frame in decoder.feed(stream[at : at + piece])]
    assert found == [Frame(wire.DATA, number, data) for number, data in frames]


def test_messages_of_the_agent_are_json() -> None:
    (frame,) = wire.Decoder().feed(wire.encode_message({"event": "ready", "nic": 2}))
    assert json.loads(frame.payload) == {"event": "ready", "nic": 2}
    assert wire.message_of(frame) == {"event": "ready", "nic": 2}


def test_orders_survive() -> None:
    order = {"op": "boot", "files": {"hosts": "x\n"}, "shares": [{"destination": "/d", "readonly": True}], "size": None}
    (frame,) = wire.Decoder().feed(wire.encode_order(order))
    assert wire.order_of(frame) == order


@pytest.mark.parametrize(
    "data",
    [
        b"\x63\0\0\0\0\0\0\0",
        b"\x01\0\0\0\xff\xff\xff\xff",
        b"\x02\0\0\1" + (wire.WINDOW + 1).to_bytes(4, "big"),
        b"\x03\0\0\1\0\0\0\1x",
        b"\x04\0\0\1\0\0\0\5",
    ],
    ids=["unknown kind", "endless message", "more than a window", "end with a payload", "long credit"],
)
def test_what_is_no_frame_is_refused_before_it_is_kept(data: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.Decoder().feed(data)


@pytest.mark.parametrize("payload", [b"", b"[1]", b"{", b"\xff\xfe", b"[" * 100_000, b"1" * 5000])
def test_what_is_no_message_is_refused(payload: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.message_of(Frame(wire.MESSAGE, 0, payload))


def test_credit_beyond_the_window_is_refused() -> None:
    (good,) = wire.Decoder().feed(wire.encode_credit(5, wire.WINDOW))
    assert wire.credit_of(good) == wire.WINDOW
    with pytest.raises(wire.WireError, match="the window is"):
        wire.credit_of(Frame(wire.CREDIT, 5, (wire.WINDOW + 1).to_bytes(4, "big")))
    with pytest.raises(wire.WireError, match="four bytes"):
        wire.credit_of(Frame(wire.CREDIT, 5, b"\0"))


def test_a_message_that_is_too_long_is_not_sent() -> None:
    with pytest.raises(ValueError, match="fit"):
        wire.encode_order({"op": "x" * wire.MAX_MESSAGE})
