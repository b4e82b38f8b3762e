from __future__ import annotations

import os
from pathlib import Path

import pytest

from bothy.keeper.control import NAME, Control, Request, hung_up
from bothy.keeper.loop import Loop
from bothy.keeper.model import SPEC
from bothy.linux import channel


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A keeper's folder."""
    (tmp_path / SPEC).write_text("{}")
    return tmp_path


def ignore(_request: Request) -> None:
    """What is asked for does not matter."""


def test_files_are_gone_before_the_end_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is told removes the folder, or has another keeper in it: nothing may be taken out of it then."""
    seen: list[list[str]] = []
    send = channel.send_encoded

    def watched(sock: channel.Socket, data: bytes) -> None:
        seen.append(os.listdir(folder))
        send(sock, data)

    loop = Loop()
    ours, theirs = channel.pair()
    control = Control(loop, str(folder), [theirs], ignore, lambda: None)
    assert sorted(os.listdir(folder)) == [NAME, SPEC]
    monkeypatch.setattr(channel, "send_encoded", watched)
    control.leave()
    assert seen == [[]]
    assert channel.receive(ours) == ({"event": "closed"}, [])
    assert channel.receive(ours) == (None, [])
    ours.close()
    loop.close()


def test_folder_that_was_given_up_is_left_alone(folder: Path) -> None:
    loop = Loop()
    control = Control(loop, str(folder), [], ignore, lambda: None)
    control.give_up_folder()
    for name in (SPEC, NAME):
        (folder / name).write_text("the next keeper's")
    control.leave()
    assert sorted(os.listdir(folder)) == [NAME, SPEC]
    loop.close()


def test_hung_up_is_known_before_all_is_read() -> None:
    ours, theirs = channel.pair()
    assert not hung_up(ours.fileno())
    channel.send(theirs, {"op": "start"})
    assert not hung_up(ours.fileno())
    theirs.close()
    assert hung_up(ours.fileno())
    assert channel.receive(ours) == ({"op": "start"}, [])
    ours.close()
