"""cp's rules for paths and names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bothy.cli.cp import _local_source, destination, divided, followed, last_part, parent_of
from bothy.cli.errors import Failure


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("web:/etc", ("web", "/etc")), ("/etc:x", ("", "/etc:x")), ("./a:b", ("", "./a:b")), ("a", ("", "a")), ("a:", ("a", "")),
        ("../x:y", ("", "../x:y")), ("web:rel", ("web", "rel")), ("-", ("", "-")),
    ],
)  # fmt: skip
def test_divided(text: str, pair: tuple[str, str]) -> None:
    assert divided(text) == pair


@pytest.mark.parametrize(
    ("path", "last"), [("/a/b", "b"), ("/a/b/", "b"), ("/a/.", "."), (".", "."), ("/", "/"), ("a", "a"), ("/a/..", "/"), ("", "/")]
)
def test_last_part(path: str, last: str) -> None:
    assert last_part(path) == last


def test_parent_of() -> None:
    assert [parent_of(path) for path in ("/a/b", "/a/b/", "a", "/a", "/")] == ["/a", "/a", "/", "/", "/"]


@pytest.mark.parametrize(
    ("path", "target", "wanted"),
    [
        ("/l", "/d", ("/d", "l")),
        ("/l/.", "/d", ("/d/.", "")),
        ("/x/d", "/y/d", ("/y/d", "")),
    ],
)
def test_followed(path: str, target: str, wanted: tuple[str, str]) -> None:
    assert followed(path, target) == wanted


def test_destination(tmp_path: Path) -> None:
    here = str(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("other")
    assert destination(here, "x", is_folder=True, renamed="") == (here, None)
    assert destination(here, "x", is_folder=True, renamed="y") == (here, ("x", "y"))
    assert destination(f"{here}/new", "x", is_folder=True, renamed="") == (here, ("x", "new"))
    assert destination(f"{here}/new/", "x", is_folder=True, renamed="") == (here, ("x", "new"))
    assert destination(f"{here}/new", ".", is_folder=True, renamed="") == (here, ("", "new"))
    assert destination(f"{here}/file", "x", is_folder=False, renamed="") == (here, ("x", "file"))
    assert destination(f"{here}/link", "x", is_folder=False, renamed="") == (here, ("x", "other"))
    for target, is_folder in ((f"{here}/file", True), (f"{here}/new/", False), (f"{here}/no/such", False)):
        with pytest.raises(Failure):
            destination(target, "x", is_folder=is_folder, renamed="")


def test_local_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = os.path.realpath(tmp_path)
    (tmp_path / "d").mkdir()
    (tmp_path / "l").symlink_to("d")
    monkeypatch.chdir(tmp_path)
    assert _local_source("l", follow=False) == (f"{here}/l", "")
    assert _local_source("l", follow=True) == (f"{here}/d", "l")
    assert _local_source("l/", follow=False) == (f"{here}/d", "l")
    assert _local_source("l/.", follow=False) == (f"{here}/d/.", "")
    assert _local_source("d/.", follow=False) == (f"{here}/d/.", "")
    assert _local_source(".", follow=False) == (f"{here}/.", "")
