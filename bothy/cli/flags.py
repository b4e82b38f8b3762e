"""Command lines as Docker reads them: a verb's flags as a table, and the one loop that reads argv by it.

The standard library's argparse would cost more than the whole of `bothy ps` (it imports `re` and `gettext` and builds
every parser), and can not say what Docker says: flags end at the first argument of `run`, `-itp 80:80` and `--rm=false`
are fine, and a wrong flag exits with 125. A flag here is a plain tuple, which costs nothing to load:

    ("publish", "p", "list", "list", "Publish a container's port(s) to the host")
      name    short   kind    metavar  help

`kind` is bool, text, list (may be repeated) or int. Help, usage and completion are made of the same tables (`help`, `completion`).
"""

from __future__ import annotations

from bothy.cli.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bothy.cli.context import Context

    FlagSpec = tuple[str, str, str, str, str]
    Handler = Callable[[Context, "Values"], int]

HELP: FlagSpec = ("help", "", "bool", "", "Print this help")
TRUE = ("true", "1", "t", "T", "TRUE", "True")
FALSE = ("false", "0", "f", "F", "FALSE", "False")


class Command:
    """One verb: what it is called, what it takes, and the function that does it.

    `arguments` is the usage text after the flags, `least` and `most` how many arguments there may be (`most` -1: any number).
    With `interspersed` false, flags end at the first argument (the program of `run` and `exec` has flags of its own).
    `dynamic` says what completion offers: containers, running, images, volumes, snapshots, secrets, networks, templates, files,
    copies (CONTAINER: or files).
    """

    __slots__ = (
        "arguments",
        "dynamic",
        "examples",
        "flags",
        "handler",
        "interspersed",
        "least",
        "most",
        "name",
        "notes",
        "summary",
    )

    def __init__(
        self,
        name: str,
        summary: str,
        handler: Handler,
        *,
        arguments: str = "",
        flags: Sequence[FlagSpec] = (),
        least: int = 0,
        most: int = 0,
        interspersed: bool = True,
        dynamic: str = "",
        notes: str = "",
        examples: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.name = name
        self.summary = summary
        self.handler = handler
        self.arguments = arguments
        self.flags = flags
        self.least = least
        self.most = most
        self.interspersed = interspersed
        self.dynamic = dynamic
        self.notes = notes
        self.examples = examples


class Values:
    """What a command line said: the flags that were given, and the arguments."""

    __slots__ = ("_given", "args")

    def __init__(self, given: dict[str, str | bool | list[str]], args: list[str]) -> None:
        self._given = given
        self.args = args

    def given(self, name: str) -> bool:
        """Whether a flag was there, with whatever value."""
        return name in self._given

    def on(self, name: str, *, default: bool = False) -> bool:
        """A switch; `default` where it was not given."""
        value = self._given.get(name, default)
        return value is True

    def text(self, name: str, default: str = "") -> str:
        """A value as it was typed; `default` where it was not given."""
        value = self._given.get(name, default)
        return value if isinstance(value, str) else default

    def many(self, name: str) -> list[str]:
        """Every value of a flag that may be repeated, in order."""
        value = self._given.get(name)
        return value if isinstance(value, list) else []

    def number(self, name: str, default: int = 0) -> int:
        """A whole number (checked when it was read)."""
        value = self._given.get(name)
        return int(value, 0) if isinstance(value, str) else default


def parse(command: Command, argv: Sequence[str]) -> Values:
    """Read `argv` (what follows the verb) by the command's table.

    Raises UsageError for an unknown flag, a missing or malformed value, or the wrong number of arguments. `--help`
    anywhere among the flags is reported as the switch `help`, and arguments are then not counted.
    """
    by_name = {flag[0]: flag for flag in command.flags}
    by_name["help"] = HELP
    by_short = {flag[1]: flag for flag in command.flags if flag[1]}
    given: dict[str, str | bool | list[str]] = {}
    args: list[str] = []
    queue = list(argv)
    queue.reverse()
    while queue:
        word = queue.pop()
        if word == "--":
            args.extend(reversed(queue))
            break
        if word.startswith("--"):
            _read_long(command, by_name, word, queue, given)
        elif len(word) > 1 and word[0] == "-":
            _read_shorts(command, by_short, word, queue, given)
        else:
            args.append(word)
            if not command.interspersed:
                args.extend(reversed(queue))
                break
    if "help" not in given:
        _count(command, args)
    return Values(given, args)


def _read_long(
    command: Command,
    flags: dict[str, FlagSpec],
    word: str,
    queue: list[str],
    given: dict[str, str | bool | list[str]],
) -> None:
    name, equals, value = word[2:].partition("=")
    flag = flags.get(name)
    if flag is None:
        raise UsageError(f"unknown flag: --{name}", command.name, _suggestion(name, flags))
    if equals:
        _store(command, flag, f"--{name}", value, given)
    elif flag[2] == "bool":
        given[name] = True
    elif queue:
        _store(command, flag, f"--{name}", queue.pop(), given)
    else:
        raise UsageError(f"flag needs an argument: --{name}", command.name)


def _read_shorts(
    command: Command,
    flags: dict[str, FlagSpec],
    word: str,
    queue: list[str],
    given: dict[str, str | bool | list[str]],
) -> None:
    """`-it`, `-p80:80`, `-p=80:80`, `-itp 80:80`, `-t=false`."""
    rest = word[1:]
    while rest:
        letter, rest = rest[0], rest[1:]
        flag = flags.get(letter)
        if flag is None:
            if letter == "h":
                given["help"] = True
                return
            raise UsageError(f"unknown shorthand flag: '{letter}' in {word}", command.name)
        if rest.startswith("="):
            _store(command, flag, f"-{letter}", rest[1:], given)
            return
        if flag[2] == "bool":
            given[flag[0]] = True
            continue
        if not rest and not queue:
            raise UsageError(f"flag needs an argument: '{letter}' in {word}", command.name)
        _store(command, flag, f"-{letter}", rest or queue.pop(), given)
        return


def _store(command: Command, flag: FlagSpec, shown: str, value: str, given: dict[str, str | bool | list[str]]) -> None:
    name, kind = flag[0], flag[2]
    if kind == "bool":
        if value not in TRUE and value not in FALSE:
            raise UsageError(f"invalid value {value!r} for {shown}: it is true or false", command.name)
        given[name] = value in TRUE
    elif kind == "list":
        values = given.setdefault(name, [])
        if isinstance(values, list):
            values.append(value)
    else:
        if kind == "int":
            try:
                int(value, 0)
            except ValueError:
                raise UsageError(f"invalid value {value!r} for {shown}: it is a whole number", command.name) from None
        given[name] = value


def _count(command: Command, args: list[str]) -> None:
    """Raise UsageError, exit code 1 as Docker's, for too few or too many arguments."""
    if len(args) < command.least:
        raise UsageError(_expectation(command), command.name, _usage(command), code=1)
    if 0 <= command.most < len(args):
        raise UsageError(_expectation(command), command.name, _usage(command), code=1)


def _usage(command: Command) -> str:
    flags = " [FLAGS]" if command.flags else ""
    return f"usage: bothy {command.name}{flags} {command.arguments}".rstrip()


def _expectation(command: Command) -> str:
    if command.most == 0:
        return f"{command.name} takes no arguments"
    if command.most == command.least:
        return f"{command.name} takes {_times(command.least)}"
    if command.most < 0:
        return f"{command.name} takes at least {_times(command.least)}"
    return f"{command.name} takes {command.least} to {_times(command.most)}"


def _times(number: int) -> str:
    return "one argument" if number == 1 else f"{number} arguments"


def _suggestion(name: str, flags: dict[str, FlagSpec]) -> str:
    """The flag that was probably meant, for a hint; empty if there is none like it."""
    from bothy.cli.help import closest

    meant = closest(name, flags)
    return f"did you mean --{meant}?" if meant else ""
