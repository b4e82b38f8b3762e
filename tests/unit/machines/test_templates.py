from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bothy.errors import Conflict, NotFound, Unavailable
from bothy.jsonable import PLAIN
from bothy.machines import saved, templates
from bothy.machines.command import Hardware
from bothy.machines.saved import Template
from bothy.machines.templates import MIB, Templates, check_room, memory_class
from bothy.paths import Paths


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "root", tmp_path / "run")


@pytest.mark.parametrize(
    ("asked", "given"), [(0, 128), (1, 128), (128, 128), (129, 192), (200, 256), (1025, 1536), (8192, 8192), (8193, 10240)]
)
def test_memory_comes_in_classes_and_never_less_than_asked(asked: int, given: int) -> None:
    assert memory_class(asked * MIB) == given * MIB
    assert memory_class(given * MIB) == given * MIB


def put(paths: Paths, key: str) -> Path:
    folder = paths.machines / "templates" / key
    folder.mkdir(parents=True)
    (folder / "ram").write_bytes(b"x" * 8192)
    template = Template(key, Hardware("tcg", 1, 128, "/k", "/i"), "/usr/bin/qemu", 1.0, "6.1", memory=64 * MIB)
    (folder / saved.DESCRIPTION).write_text(PLAIN.dumps(template))
    return folder


def test_templates_are_listed_and_removed_by_the_beginning_of_their_key(paths: Paths) -> None:
    found = Templates(paths)
    assert found.list() == []
    put(paths, "aa11")
    put(paths, "aa22")
    assert {usage.key for usage in found.list()} == {"aa11", "aa22"}
    assert found.list()[0].memory == 64 * MIB, "what programs get"
    with pytest.raises(Conflict):
        found.remove("aa")
    with pytest.raises(NotFound):
        found.remove("")
    assert found.remove("aa1") >= 8192
    assert [usage.key for usage in found.list()] == ["aa22"]


def test_a_folder_without_a_whole_description_is_no_template(paths: Paths) -> None:
    folder = put(paths, "bb")
    (folder / saved.DESCRIPTION).write_text('{"key": 3}')
    assert Templates(paths).list() == []
    with pytest.raises(ValueError, match="Template"):
        saved.read(folder)
    (folder / saved.DESCRIPTION).unlink()
    with pytest.raises(NotFound):
        saved.read(folder)


def test_prune_removes_what_nobody_would_get_any_more_and_leftovers(paths: Paths) -> None:
    put(paths, "cc")
    leftover = paths.machines / "templates/.new-dd-xyz"
    leftover.mkdir()
    (leftover / "ram").write_bytes(b"x")
    keys, freed = Templates(paths).prune()
    assert list(keys) == ["cc"]
    assert freed >= 8192
    assert [name for name in os.listdir(paths.machines / "templates") if not name.startswith(".lock")] == []


def test_a_template_that_the_disk_can_not_take_is_refused(tmp_path: Path) -> None:
    check_room(tmp_path, 256, "small")
    with pytest.raises(Unavailable, match=r"the machine template \(huge\) takes \d+ MiB of disk, \d+ MiB are free"):
        check_room(tmp_path, 1 << 40, "huge")


def test_without_qemu_the_error_names_the_package(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Unavailable) as caught:
        Templates(paths).ensure(1, 128 * MIB)
    assert "qemu-system-x86" in caught.value.hint


def test_the_key_covers_everything_that_matters(paths: Paths, tmp_path: Path) -> None:
    boot = templates.BootFiles("digest", "6.1", tmp_path / "k", tmp_path / "i")
    hardware = Hardware("tcg", 1, 128, "/somewhere/k", "/somewhere/i", 2_600_000)
    original = templates._key(hardware, boot)
    assert templates._key(Hardware("tcg", 1, 128, "/else/k", "/else/i", 2_600_000), boot) == original, "places do not matter"
    others = [
        Hardware("kvm", 1, 128, "", ""),
        Hardware("tcg", 2, 128, "", "", 2_600_000),
        Hardware("tcg", 1, 256, "", "", 2_600_000),
        Hardware("tcg", 1, 128, "", "", 2_700_000),
        Hardware("tcg", 1, 128, "", "", 2_600_000, machine="pc"),
    ]
    keys = {original, *(templates._key(other, boot) for other in others)}
    keys.add(templates._key(hardware, templates.BootFiles("other", "6.1", tmp_path / "k", tmp_path / "i")))
    assert len(keys) == len(others) + 2


def test_the_description_survives_the_disk() -> None:
    template = Template("k", Hardware("tcg", 1, 128, "/k", "/i", 5), "/q", 1.5, "6.1", 2)
    assert PLAIN.from_data(Template, json.loads(PLAIN.dumps(template))) == template
