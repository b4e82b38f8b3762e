"""Lists for people: a table that fits the terminal, ids only, one JSON object a line, or a Go template.

A list is rows (one dict a thing, with Docker's field names) and columns: (field, heading, share). Where the terminal is too
narrow, columns with share < 0 are left out (the lowest first), then those with share > 0 give way, in proportion to it. Elsewhere
than on a terminal nothing is cut.
"""

from __future__ import annotations

from bothy.cli.context import out, terminal_width

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    Column = tuple[str, str, int]
    Row = dict[str, Any]

GAP = 3
LEAST = 8


class Labelled(dict[str, "Any"]):
    """A row of a thing that has labels: `{{.Label "key"}}` looks there."""

    labels: dict[str, str]


def show(
    rows: list[Row], columns: Sequence[Column], *, form: str = "", ids: str = "", headings: dict[str, str] | None = None
) -> None:
    """Print a list. `form` is --format's value; `ids` is the field that -q prints, empty without -q.

    `headings` are those of fields which have no column of their own, for `table {{.Field}}`.
    """
    if ids and form in ("", "table"):
        for row in rows:
            out(str(row[ids]))
    elif form in ("", "table"):
        write([[str(row[field]) for field, _, _ in columns] for row in rows], columns)
    elif form == "json":
        from bothy import quickjson

        for row in rows:
            out(quickjson.dumps(row))
    else:
        _show_template(rows, form, {field: heading for field, heading, _ in columns} | (headings or {}))


def _show_template(rows: list[Row], form: str, headings: dict[str, str]) -> None:
    from bothy.cli.templates import Template

    is_table = form == "table" or form.startswith(("table ", "table\t", "table\\t"))
    text = form[5:].lstrip(" ") if is_table else form
    template = Template(text.replace("\\t", "\t").replace("\\n", "\n"))
    lines = [template.render(row) for row in rows]
    if not is_table:
        for line in lines:
            out(line)
        return
    names = {field: headings.get(field, spaced(field)) for field in (rows[0] if rows else headings)}
    cells = [line.split("\t") for line in [template.render({**headings, **names}), *lines]]
    width = max(len(row) for row in cells)
    write([row + [""] * (width - len(row)) for row in cells[1:]], [("", cell, 0) for cell in cells[0]])


def spaced(field: str) -> str:
    """`CreatedAt` as a heading: `CREATED AT`."""
    return "".join(f" {c}" if c.isupper() and i and not field[i - 1].isupper() else c for i, c in enumerate(field)).upper()


def write(cells: list[list[str]], columns: Sequence[Column]) -> None:
    """Print headings and rows, columns aligned."""
    grid = [[heading for _, heading, _ in columns], *cells]
    grid = [[clean(cell) for cell in row] for row in grid]
    widths = [max(len(row[i]) for row in grid) for i in range(len(columns))]
    shares = [share for _, _, share in columns]
    shown = list(range(len(columns)))
    room = terminal_width()
    if room:
        shown = kept(widths, shares, room)
        fit = fitted([widths[i] for i in shown], [max(0, shares[i]) for i in shown], room)
        widths = [fit[shown.index(i)] if i in shown else 0 for i in range(len(columns))]
    for row in grid:
        parts = [cut(row[i], widths[i]).ljust(widths[i]) for i in shown]
        out((" " * GAP).join(parts).rstrip())


def clean(cell: str) -> str:
    """Without what would break a line or speak to the terminal."""
    return cell if cell.isprintable() else "".join(c if c.isprintable() else " " for c in cell)


def cut(cell: str, width: int) -> str:
    """A cell in so many columns, with a mark where something was cut off."""
    return cell if len(cell) <= width else cell[: max(width - 1, 0)] + "…"


def kept(widths: list[int], shares: list[int], room: int) -> list[int]:
    """The columns that are shown: those with a share below 0 are left out, the lowest first, until the rest fits."""
    shown = list(range(len(widths)))
    for i in sorted(shown, key=lambda i: shares[i]):
        if shares[i] >= 0 or sum(widths[k] + GAP for k in shown) - GAP <= room:
            break
        shown.remove(i)
    return shown


def fitted(widths: list[int], shares: list[int], room: int) -> list[int]:
    """Widths that fit: columns with a share give way, widest first, none below its least."""
    widths = list(widths)
    over = sum(widths) + GAP * (len(widths) - 1) - room
    while over > 0:
        ready = [i for i, share in enumerate(shares) if share and widths[i] > LEAST]
        if not ready:
            break
        i = max(ready, key=lambda i: widths[i] * shares[i])
        widths[i] -= 1
        over -= 1
    return widths
