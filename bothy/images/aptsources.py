"""What the host's apt is configured for, as one-line entries for one Debian suite. Pure functions over text, and one that reads
the host's files.

Both forms of sources are read: `deb [options] uri suite component…` (*.list) and deb822 stanzas (*.sources).
Source: sources.list(5).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

_ONE_LINE = re.compile(r"deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s*(.*)")
_OPTIONS = {
    "signed-by": "signed-by", "trusted": "trusted", "check-valid-until": "check-valid-until", "check-date": "check-date",
    "allow-insecure": "allow-insecure", "allow-weak": "allow-weak", "by-hash": "by-hash",
}  # fmt: skip
MAIN = "main"


@dataclass(frozen=True)
class Entry:
    """One line of sources.list: `deb [options] uri suite components`."""

    uri: str
    suite: str
    components: list[str]
    options: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        options = " ".join(f"{key}={value}" for key, value in self.options.items())
        return " ".join(filter(None, ("deb", options and f"[{options}]", self.uri, self.suite, *self.components)))


def parse_lines(text: str) -> Iterator[Entry]:
    """The entries of a *.list file."""
    for line in text.splitlines():
        match = _ONE_LINE.fullmatch(line.partition("#")[0].strip())
        if match is not None:
            options = dict(option.split("=", 1) for option in (match[1] or "").split() if "=" in option)
            kept = {key.lower(): value for key, value in options.items() if key.lower() in _OPTIONS}
            yield Entry(match[2], match[3], match[4].split(), kept)


def parse_stanzas(text: str) -> Iterator[Entry]:
    """The entries of a *.sources file. Keys written out in Signed-By are left out: apt's own keyrings are used for those."""
    for stanza in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line.startswith("#"):
                continue
            if line[:1].isspace():
                fields[name] = f"{fields.get(name, '')}\n{line.strip()}"
            elif ":" in line:
                name, _, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in ("no", "false", "off", "0"):
            continue
        options = {key: " ".join(fields[key].split()) for key in _OPTIONS if fields.get(key) and "BEGIN PGP" not in fields[key]}
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield Entry(uri, suite, fields.get("components", "").split(), options)


def host_entries(etc: Path = Path("/etc/apt")) -> list[Entry]:
    """The entries of all source files of the host, in apt's order."""
    entries: list[Entry] = []
    for path in [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))]:
        if path.suffix not in (".list", ".sources") or not path.is_file():
            continue
        text = path.read_text(errors="replace")
        entries += parse_stanzas(text) if path.suffix == ".sources" else parse_lines(text)
    return entries


def for_suite(entries: list[Entry], suite: str) -> list[Entry]:
    """The entries to make a system of `suite` from: the host's own for it and its updates; where the host has none for it, those of
    the host's own release with the suite replaced."""
    usable = [entry for entry in entries if MAIN in entry.components]
    ours = [entry for entry in usable if base_of(entry.suite) == suite]
    if any(entry.suite == suite for entry in ours):
        return ours
    bases = [entry for entry in usable if entry.suite == base_of(entry.suite) and "debian" in entry.uri]
    if not bases:
        return []
    release = bases[0].suite
    rolling = suite in ("sid", "unstable", "experimental", "rc-buggy")
    others = [entry for entry in usable if base_of(entry.suite) == release and (entry.suite == release or not rolling)]
    return [replace(entry, suite=suite + entry.suite[len(release) :], options=_portable(entry.options)) for entry in others]


def base_of(suite: str) -> str:
    """The release that a suite belongs to: `bookworm` for `bookworm-updates`, `bookworm-security` and `bookworm/updates`."""
    for ending in ("-updates", "-security", "/updates", "-proposed-updates"):
        suite = suite.removesuffix(ending)
    return suite


def _portable(options: dict[str, str]) -> dict[str, str]:
    """Options that hold for another release too: a keyring named after one release does not."""
    return {key: value for key, value in options.items() if key != "signed-by" or value.endswith("debian-archive-keyring.gpg")}
