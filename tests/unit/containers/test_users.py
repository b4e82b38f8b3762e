"""Docker's `--user` words against an image's own files."""

from __future__ import annotations

import pytest

from bothy.containers.users import lookup
from bothy.errors import StageError
from bothy.oci.runtime import User

FILES = {
    "/etc/passwd": "root:x:0:0:root:/root:/bin/sh\n# a comment\nbroken\nann:x:1000:1000::/home/ann:/bin/sh\n1234:x:7:7::/odd:\nbad:x:y:z::/:\n",
    "/etc/group": "root:x:0:\nadm:x:4:ann,root\nwheel:x:10:root,ann\nann:x:1000:\nbroken\nstaff:x:50:\n",
}


def look(text: str, **more: object) -> tuple[int, int, list[int], str]:
    found = lookup(User(username=text, **more), lambda path: FILES[path])  # type: ignore[arg-type]
    return found.uid, found.gid, found.groups, found.home


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (0, 0, [4, 10], "/root")),
        ("root", (0, 0, [4, 10], "/root")),
        ("ann", (1000, 1000, [4, 10], "/home/ann")),
        ("1000", (1000, 1000, [4, 10], "/home/ann")),
        ("ann:staff", (1000, 50, [], "/home/ann")),
        ("1000:50", (1000, 50, [], "/home/ann")),
        ("ann:777", (1000, 777, [], "/home/ann")),
        ("4242", (4242, 0, [], "/")),
        ("4242:4343", (4242, 4343, [], "/")),
        ("1234", (7, 7, [], "/odd")),
        (":staff", (0, 50, [], "/root")),
    ],
)
def test_users(text: str, expected: tuple[int, int, list[int], str]) -> None:
    assert look(text) == expected


def test_numbers_without_a_name_are_taken_as_they_are() -> None:
    assert look("", uid=4242, gid=4343, additional_gids=[5])[:3] == (4242, 4343, [5])


def test_additional_groups_join_the_users_own() -> None:
    assert look("ann", additional_gids=[99])[2] == [4, 10, 99]


def test_additional_groups_have_names_or_numbers() -> None:
    assert look("ann:staff", additional_groups=["wheel", "4", "777"], additional_gids=[5])[1:3] == (50, [4, 5, 10, 777])
    with pytest.raises(StageError, match="unable to find group nothing: no matching entries in group file"):
        look("ann", additional_groups=["nothing"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nobody-here", "unable to find user nobody-here: no matching entries in passwd file"),
        ("ann:nothing", "unable to find group nothing: no matching entries in group file"),
        ("99999999999", "must be in range"),
        ("-5", "unable to find user -5"),
        ("ann:99999999999", "must be in range"),
    ],
)
def test_who_is_not_there(text: str, message: str) -> None:
    with pytest.raises(StageError, match=message) as caught:
        look(text)
    assert caught.value.stage == "user"


def test_without_files_only_numbers_work() -> None:
    assert lookup(User(username="5:6"), lambda path: "").gid == 6
    with pytest.raises(StageError):
        lookup(User(username="ann"), lambda path: "")


def test_huge_and_odd_numbers_in_the_files_are_passed_over() -> None:
    text = "evil:x:4294967295:0::/:\nann:x:\u0661:0::/:\n"
    with pytest.raises(StageError):
        lookup(User(username="5000"), lambda path: text)
