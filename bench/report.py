"""The report of a bench run: a table for people, JSON for machines, and a picture."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from bench.figures import Figure


def table(figures: list[Figure]) -> str:
    """A Markdown table: the figure, what it is, what it must reach, and the medians it was made of."""
    lines = ["| figure | measured | must reach | | medians |", "|---|--:|--:|---|---|"]
    for f in figures:
        medians = ", ".join(f"{who} {value:.1f}" for who, value in f.medians.items())
        mark = "" if math.isinf(f.limit) else "reached" if f.reached else "**missed**"
        limit = f.rule if math.isinf(f.limit) else f"≤ {f.limit:.1f} {f.unit} ({f.rule})"
        lines.append(f"| {f.name} | {f.value:.1f} {f.unit} | {limit} | {mark} | {medians} |")
    return "\n".join(lines) + "\n"


def document(figures: list[Figure], about: dict[str, Any]) -> dict[str, Any]:
    return {
        "about": about,
        "figures": [
            {"name": f.name, "value": f.value, "limit": None if math.isinf(f.limit) else f.limit, "unit": f.unit, "rule": f.rule,
             "reached": f.reached, "medians": f.medians, "samples": f.samples}
            for f in figures
        ],
    }  # fmt: skip


def plot(figures: list[Figure], path: Path) -> None:
    """One bar a figure: the measured value as a share of its limit (a bar left of the line has reached it)."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    figures = [f for f in figures[::-1] if not math.isinf(f.limit)]
    shares = [f.value / f.limit for f in figures]
    fig, axes = plt.subplots(figsize=(9, 0.45 * len(figures) + 1.2))
    axes.barh([f.name for f in figures], shares, color=["#2a7f62" if f.reached else "#b3413a" for f in figures])
    axes.axvline(1, color="black", linewidth=1)
    for row, f in enumerate(figures):
        axes.text(shares[row] + 0.02, row, f"{f.value:.1f} of {f.limit:.1f} {f.unit}", va="center", fontsize=8)
    axes.set_xlim(0, max([1.4, *(s + 0.4 for s in shares)]))
    axes.set_xlabel("measured, as a share of what it must reach (less is better)")
    fig.tight_layout()
    fig.savefig(path)


def write(figures: list[Figure], about: dict[str, Any], folder: Path) -> None:
    """Write figures.md, figures.json and figures.svg."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "figures.md").write_text(table(figures))
    (folder / "figures.json").write_text(json.dumps(document(figures, about), indent=1) + "\n")
    plot(figures, folder / "figures.svg")
