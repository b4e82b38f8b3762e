"""Reading of command lines: Docker's rules."""

from __future__ import annotations

import pytest

from bothy.cli import registry
from bothy.cli.errors import UsageError
from bothy.cli.flags import Command, Values, parse

FLAGS = (
    ("tty", "t", "bool", "", "Terminal"),
    ("interactive", "i", "bool", "", "Input"),
    ("publish", "p", "list", "list", "Ports"),
    ("name", "n", "text", "name", "Name"),
    ("tail", "", "int", "number", "Lines"),
    ("rm", "", "bool", "", "Remove"),
)


def command(*, interspersed: bool = True, least: int = 0, most: int = -1) -> Command:
    return Command("verb", "Does it", lambda context, flags: 0, flags=FLAGS, least=least, most=most, interspersed=interspersed)


def read(*argv: str, interspersed: bool = True) -> Values:
    return parse(command(interspersed=interspersed), argv)


def test_flags_of_one_letter_are_taken_together() -> None:
    flags = read("-itp", "80:80", "x")
    assert (flags.on("interactive"), flags.on("tty"), flags.many("publish"), flags.args) == (True, True, ["80:80"], ["x"])


@pytest.mark.parametrize("argv", [["-p80"], ["-p=80"], ["-p", "80"], ["--publish=80"], ["--publish", "80"], ["-tp80"]])
def test_a_value_has_many_places(argv: list[str]) -> None:
    assert read(*argv).many("publish") == ["80"]


def test_lists_keep_their_order() -> None:
    assert read("-p", "1", "x", "--publish=2", "-p3").many("publish") == ["1", "2", "3"]


@pytest.mark.parametrize(("word", "expected"), [("true", True), ("1", True), ("false", False), ("F", False)])
def test_switches_take_a_value(word: str, expected: bool) -> None:
    assert read(f"--rm={word}").on("rm") is expected
    assert read(f"-t={word}").on("tty") is expected


def test_a_switch_has_a_default_where_it_is_not_given() -> None:
    assert read().on("rm", default=True)
    assert not read("--rm=false").on("rm", default=True)


def test_a_value_may_look_like_a_flag() -> None:
    assert read("--name", "-x").text("name") == "-x"
    assert read("--tail", "-1").number("tail") == -1


def test_flags_end_at_two_dashes() -> None:
    assert read("-t", "--", "-i", "--x").args == ["-i", "--x"]


def test_flags_of_the_program_are_its_own() -> None:
    flags = read("-t", "image", "ls", "-i", "--rm", interspersed=False)
    assert flags.args == ["image", "ls", "-i", "--rm"]
    assert not flags.on("rm")


def test_a_single_dash_is_an_argument() -> None:
    assert read("-").args == ["-"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--nmae", "x"], "unknown flag: --nmae"),
        (["-tx"], "unknown shorthand flag: 'x' in -tx"),
        (["--name"], "flag needs an argument: --name"),
        (["-n"], "flag needs an argument: 'n' in -n"),
        (["--rm=perhaps"], "invalid value 'perhaps' for --rm: it is true or false"),
        (["--tail", "x"], "invalid value 'x' for --tail: it is a whole number"),
    ],
)
def test_wrong_flags_exit_with_125(argv: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(*argv)
    assert (caught.value.message, caught.value.code) == (message, 125)


def test_a_mistyped_flag_is_guessed() -> None:
    with pytest.raises(UsageError) as caught:
        read("--nmae", "x")
    assert caught.value.hint == "did you mean --name?"


@pytest.mark.parametrize(
    ("least", "most", "argv", "message"),
    [
        (0, 0, ["a"], "verb takes no arguments"),
        (1, 1, [], "verb takes one argument"),
        (2, 2, ["a"], "verb takes 2 arguments"),
        (1, -1, [], "verb takes at least one argument"),
        (1, 2, ["a", "b", "c"], "verb takes 1 to 2 arguments"),
    ],
)
def test_a_wrong_number_of_arguments_exits_with_1(least: int, most: int, argv: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(command(least=least, most=most), argv)
    assert (caught.value.message, caught.value.code) == (message, 1)


def test_help_needs_no_arguments() -> None:
    assert parse(command(least=1), ["--help"]).on("help")
    assert parse(command(least=1), ["-h"]).on("help")


@pytest.mark.parametrize("verb", registry.VERBS)
def test_every_table_is_sound(verb: str) -> None:
    found = registry.command(verb)
    names = [flag[0] for flag in found.flags] + [flag[1] for flag in found.flags if flag[1]]
    assert found.name == verb
    assert len(names) == len(set(names)), "two flags of one name"
    for name, short, kind, metavar, text in found.flags:
        assert name
        assert len(short) < 2
        assert kind in ("bool", "text", "list", "int")
        assert (kind == "bool") == (not metavar)
        assert not text.endswith(".")


@pytest.mark.parametrize("verb", registry.VERBS)
def test_every_verb_has_a_page_with_an_example(verb: str) -> None:
    from bothy.cli.help import page

    found = registry.command(verb)
    text = page(found, verb)
    assert text.startswith(f"usage: bothy {verb}")
    assert "Examples:" in text
    for flag in found.flags:
        assert f"--{flag[0]}" in text


def test_aliases_lead_somewhere() -> None:
    assert set(registry.ALIASES.values()) <= set(registry.VERBS)
    named = {name for _, names in registry.SECTIONS for name in names}
    assert named <= {*registry.VERBS, *registry.GROUPS}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["ps", "-a"], ("ps", "ps", 1)),
        (["container", "ls", "-a"], ("ps", "container ls", 2)),
        (["image", "rm", "x"], ("rmi", "image rm", 2)),
        (["machine", "template", "ls"], ("machine template ls", "machine template ls", 3)),
        (["nonsense"], ("", "", 0)),
        (["image"], ("", "", 0)),
    ],
)
def test_words_to_verbs(words: list[str], expected: tuple[str, str, int]) -> None:
    assert registry.canonical(words) == expected
