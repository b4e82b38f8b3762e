"""completion: scripts for bash, zsh and fish, of the verbs' own tables. Names of workloads and images are asked for when needed."""

from __future__ import annotations

import sys

from bothy.cli.completion_scripts import BASH, FISH_HEAD, ZSH
from bothy.cli.context import Context
from bothy.cli.errors import UsageError
from bothy.cli.flags import Command, Values
from bothy.cli.registry import ALIASES, GROUPS, VERBS, command, summaries

SHELLS = ("bash", "zsh", "fish")
VALUES = {
    "pull": "always missing never",
    "restart": "no always on-failure unless-stopped",
    "userns": "host",
    "uts": "host",
    "pid": "host",
    "ipc": "private shareable none host",
    "cgroupns": "host private",
    "runtime": "vm",
    "log-driver": "json-file none",
    "type": "container image volume network",
    "signal": "TERM KILL HUP INT QUIT USR1 USR2 STOP CONT",
    "stop-signal": "TERM KILL HUP INT QUIT USR1 USR2",
    "network": "bridge host none",
    "net": "bridge host none",
}
FILES = ("env-file", "label-file", "cidfile", "input", "output", "volume", "mount")


def completion(context: Context, flags: Values) -> int:
    """Print the script of a shell."""
    shell = flags.args[0]
    makers = {"bash": bash, "zsh": zsh, "fish": fish}
    if shell not in makers:
        raise UsageError(f"there is no completion for {shell!r}", "completion", f"shells are {', '.join(SHELLS)}")
    sys.stdout.write(makers[shell]())
    return 0


def _names() -> list[str]:
    """Every verb and alias as it is typed."""
    return sorted([*VERBS, *ALIASES])


def _tables() -> str:
    """Shell case branches that tell the flags, the flags with a value and the arguments of each verb."""
    lines = []
    for name in _names():
        verb = command(ALIASES.get(name, name))
        switches = " ".join(flag for spec in verb.flags for flag in _spelled(spec) if spec[2] == "bool")
        valued = " ".join(flag for spec in verb.flags for flag in _spelled(spec) if spec[2] != "bool")
        stops = "" if verb.interspersed else "1"
        lines.append(
            f"    '{name}') _bothy_switches='{f'{switches} --help'.strip()}' _bothy_valued='{valued}' "
            f"_bothy_kind='{verb.dynamic}' _bothy_stops='{stops}' ;;"
        )
    return "\n".join(lines)


def _spelled(spec: tuple[str, str, str, str, str]) -> list[str]:
    return [f"--{spec[0]}", *([f"-{spec[1]}"] if spec[1] else [])]


def _words() -> str:
    """Case branches: what may follow each beginning of a verb (the empty one included)."""
    following: dict[str, set[str]] = {}
    for name in (*_names(), *GROUPS):
        words = name.split(" ")
        for i, word in enumerate(words):
            following.setdefault(" ".join(words[:i]), set()).add(word)
    return "\n".join(f"    '{begin}') _bothy_next='{' '.join(sorted(words))}' ;;" for begin, words in sorted(following.items()))


def _values() -> str:
    lines = [f"    --{flag}) _bothy_choices='{words}' ;;" for flag, words in sorted(VALUES.items())]
    return "\n".join([*lines, f"    {'|'.join(f'--{name}' for name in FILES)}|-i|-o|-v) _bothy_choices='@files' ;;"])


def bash() -> str:
    """One function that walks the words by tables of the verbs."""
    return BASH.replace("@TABLES@", _tables()).replace("@WORDS@", _words()).replace("@VALUES@", _values())


def zsh() -> str:
    """The same function, called through zsh's own emulation of bash completion."""
    return ZSH.replace("@BASH@", bash())


def fish() -> str:
    """One `complete` line for each verb, flag and kind of argument."""
    known = summaries()
    lines = [FISH_HEAD]
    for name in (*_names(), *GROUPS):
        *begin, word = name.split(" ")
        lines.append(f"complete -c bothy -n '__bothy_at {' '.join(begin)}' -a {word} -d {_quoted(known[name])}")
    for name in _names():
        verb = command(ALIASES.get(name, name))
        for long, short, kind, _, text in sorted(verb.flags):
            parts = [f"complete -c bothy -n '__bothy_in {name}' -l {long}"]
            if short:
                parts.append(f"-s {short}")
            if kind != "bool":
                parts.append("-r" + ("" if long in FILES else f"f -a '{VALUES.get(long, '')}'"))
            lines.append(" ".join([*parts, "-d", _quoted(text)]))
        if verb.dynamic in ("files", "copies"):
            lines.append(f"complete -c bothy -n '__bothy_in {name}' -F")
        if verb.dynamic not in ("", "files"):
            lines.append(f"complete -c bothy -n '__bothy_in {name}' -a '(__bothy_{verb.dynamic})'")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


COMMANDS = {
    "completion": Command(
        "completion",
        "Print a script that lets a shell complete bothy's commands",
        completion,
        arguments="bash|zsh|fish",
        least=1,
        most=1,
        examples=(
            ("bothy completion bash > /etc/bash_completion.d/bothy", "For every new bash"),
            ("source <(bothy completion bash)", "For this bash"),
            ('bothy completion zsh > "${fpath[1]}/_bothy"', "For zsh"),
            ("bothy completion fish > ~/.config/fish/completions/bothy.fish", "For fish"),
        ),
    ),
}
