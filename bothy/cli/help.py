"""Help for people: the overview, a verb's page, and the command that was probably meant. Loaded only when asked for."""

from __future__ import annotations

import os
import sys

from bothy.cli.registry import ALIASES, GROUPS, SECTIONS, VERBS, summaries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from bothy.cli.flags import Command, FlagSpec

GLOBAL_FLAGS: tuple[FlagSpec, ...] = (
    ("host", "H", "text", "unix:///path", "Socket of the engine to talk to (default: bothy.sock in $BOTHY_RUN, /run/bothy)"),
    ("debug", "D", "bool", "", "Print the traceback of an error of bothy's own"),
    ("version", "v", "bool", "", "Print bothy's version"),
    ("help", "", "bool", "", "Print this help"),
)


def columns() -> int:
    """How wide to write: the terminal's width between 60 and 110, 100 where there is none."""
    try:
        width = os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError):
        width = 0
    return max(60, min(width or 100, 110))


def wrap(text: str, indent: str, width: int) -> str:
    """Words of `text` in lines of at most `width`, each line after the first indented."""
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > width - len(indent):
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    lines.append(line)
    return f"\n{indent}".join(lines)


def overview() -> str:
    """What `bothy --help` prints: every command, grouped."""
    width = columns()
    known = summaries()
    lines = [
        "usage: bothy [-H unix:///path] COMMAND …",
        "",
        "Containers and virtual machines from the same image: the same verbs, the same network, you pick the wall.",
        "",
        "  bothy image bootstrap debian:bookworm        make an image from the host's Debian archive",
        "  bothy run -it debian:bookworm bash           a container: a process on this kernel",
        "  bothy run -it --vm debian:bookworm bash      a virtual machine: the same image on a kernel of its own",
    ]
    for title, names in SECTIONS:
        lines += ["", f"{title}:"]
        column = max(map(len, names)) + 3
        lines += [f"  {name:<{column}}{wrap(known[name], ' ' * (column + 2), width)}" for name in names]
    lines += ["", "Global flags (before the command):"]
    lines += _flag_lines(GLOBAL_FLAGS, width)
    lines += ["", "bothy COMMAND --help explains a command. BOTHY_ROOT and BOTHY_RUN move the engine's state and socket."]
    return "\n".join(lines) + "\n"


def group_page(group: str) -> str:
    """What `bothy image --help` prints."""
    known = summaries()
    lines = [f"usage: bothy {group} COMMAND …", "", GROUPS[group], "", "Commands:"]
    prefix = group + " "
    shown: dict[str, str] = {}  # one word for each verb, not every alias of it
    for name in (*VERBS, *ALIASES, *GROUPS):
        if name.startswith(prefix) and " " not in name[len(prefix) :]:
            shown.setdefault(ALIASES.get(name, name), name[len(prefix) :])
    column = max(map(len, shown.values())) + 3
    lines += [f"  {word:<{column}}{known[verb]}" for verb, word in sorted(shown.items(), key=lambda item: item[1])]
    lines += ["", f"bothy {group} COMMAND --help explains a command."]
    return "\n".join(lines) + "\n"


def page(command: Command, shown: str) -> str:
    """What `bothy VERB --help` prints: usage, what it does, examples, flags."""
    width = columns()
    flags = " [FLAGS]" if command.flags else ""
    arguments = f" {command.arguments}" if command.arguments else ""
    lines = [f"usage: bothy {shown}{flags}{arguments}", "", wrap(command.summary, "", width)]
    for paragraph in command.notes.split("\n\n") if command.notes else ():
        lines += ["", wrap(paragraph, "", width)]
    if command.examples:
        lines += ["", "Examples:"]
        for example, meaning in command.examples:
            lines += [f"  # {meaning}", f"  {example}"]
    if command.flags:
        lines += ["", "Flags:"]
        lines += _flag_lines(sorted(command.flags), width)
    return "\n".join(lines) + "\n"


def _flag_lines(flags: Iterable[FlagSpec], width: int) -> list[str]:
    heads = [(f"  {f'-{f[1]}, ' if f[1] else '    '}--{f[0]}{f' {f[3]}' if f[3] else ''}", f[4]) for f in flags]
    column = min(max(len(head) for head, _ in heads) + 2, 34)
    lines = []
    for head, text in heads:
        body = wrap(text, " " * column, width)
        lines.append(f"{head:<{column}}{body}" if len(head) < column - 1 else f"{head}\n{' ' * column}{body}")
    return lines


def closest(word: str, known: Iterable[str]) -> str:
    """The known word nearest to a mistyped one (at most two edits, or a beginning), empty if none is near."""
    best, least = "", 3
    for candidate in known:
        if len(word) > 2 and candidate.startswith(word):
            return candidate
        if abs(len(candidate) - len(word)) < 3:
            edits = _edits(word, candidate)
            if edits < min(least, max(2, len(word) // 2)):
                best, least = candidate, edits
    return best


def _edits(a: str, b: str) -> int:
    """Levenshtein's distance, two neighbours swapped counting once."""
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        previous, row = row, [i]
        for j, other in enumerate(b, 1):
            cost = min(previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == b[j - 2] and a[i - 2] == other:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before = previous
    return row[-1]
