"""What is left of a run is taken away, also while its keeper is still at it."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bothy.engine.containers import ending
from bothy.paths import Paths


@pytest.fixture
def hall(tmp_path: Path) -> Any:
    """As much of a hall as is asked for: the paths."""
    paths = Paths(tmp_path / "root", tmp_path / "run")
    folder = paths.keeper("w")
    (folder / "jail" / "dev").mkdir(parents=True)
    for name in ("spec.json", "control.sock", "exit.json"):
        (folder / name).write_text("")
    return SimpleNamespace(paths=paths)


def test_a_keepers_folder_is_removed_with_all_that_is_in_it(hall: Any) -> None:
    ending.remove_keeper_folder(hall, "w")
    assert os.listdir(hall.paths.run / "keepers") == []
    ending.remove_keeper_folder(hall, "w")


def test_what_a_keeper_takes_away_itself_does_not_matter(hall: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    listdir = os.listdir

    def meanwhile(folder: str) -> list[str]:
        names = listdir(folder)
        for name in ("control.sock", "spec.json"):
            Path(folder, name).unlink(missing_ok=True)
        return names

    monkeypatch.setattr(os, "listdir", meanwhile)
    ending.remove_keeper_folder(hall, "w")
    assert listdir(hall.paths.run / "keepers") == []


def test_what_a_keeper_leaves_at_last_is_removed_too(hall: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    listdir = os.listdir
    late = [".exit.json.1", "exit.json"]

    def meanwhile(folder: str) -> list[str]:
        names = listdir(folder)
        if late:
            Path(folder, late.pop(0)).write_text("")
        return names

    monkeypatch.setattr(os, "listdir", meanwhile)
    ending.remove_keeper_folder(hall, "w")
    assert listdir(hall.paths.run / "keepers") == []


def test_a_folder_that_can_not_be_removed_is_logged(
    hall: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(path: str, **_: object) -> None:
        raise OSError(16, "Device or resource busy", path)

    monkeypatch.setattr(os, "rmdir", refuse)
    ending.remove_keeper_folder(hall, "w")
    assert "can not be removed" in caplog.text
