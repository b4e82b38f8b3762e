"""Sources of the host's apt, and what a suite is made from."""

import pytest

from bothy.errors import Invalid
from bothy.images import aptsources, debian
from bothy.images.aptsources import Entry

DEB822 = """# comment
Types: deb deb-src
URIs: http://deb.debian.org/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://security.debian.org/debian-security
Suites: bookworm-security
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 xyz

Enabled: no
Types: deb
URIs: http://off.example
Suites: bookworm
Components: main

Types: deb
URIs: https://deb.nodesource.com/node_20.x
Suites: nodistro
Components: main
"""
KEYRING = {"signed-by": "/usr/share/keyrings/debian-archive-keyring.gpg"}


def entries():
    return list(aptsources.parse_stanzas(DEB822))


def test_stanzas_are_read():
    assert entries() == [
        Entry("http://deb.debian.org/debian", "bookworm", ["main", "contrib"], KEYRING),
        Entry("http://deb.debian.org/debian", "bookworm-updates", ["main", "contrib"], KEYRING),
        Entry("http://security.debian.org/debian-security", "bookworm-security", ["main"], {}),
        Entry("https://deb.nodesource.com/node_20.x", "nodistro", ["main"], {}),
    ]


def test_lines_are_read():
    text = "deb [arch=amd64 signed-by=/k.gpg] http://m/debian bookworm main  # x\n# deb http://off x main\ndeb-src http://m x main\ndeb http://n ./\n"
    assert list(aptsources.parse_lines(text)) == [
        Entry("http://m/debian", "bookworm", ["main"], {"signed-by": "/k.gpg"}),
        Entry("http://n", "./", []),
    ]
    assert str(next(aptsources.parse_lines(text))) == "deb [signed-by=/k.gpg] http://m/debian bookworm main"


def test_the_hosts_own_entries_are_used_for_its_suite():
    assert [entry.suite for entry in aptsources.for_suite(entries(), "bookworm")] == [
        "bookworm",
        "bookworm-updates",
        "bookworm-security",
    ]


def test_another_suite_comes_from_the_hosts_archive():
    found = aptsources.for_suite(entries(), "trixie")
    assert [(entry.uri, entry.suite) for entry in found] == [
        ("http://deb.debian.org/debian", "trixie"),
        ("http://deb.debian.org/debian", "trixie-updates"),
        ("http://security.debian.org/debian-security", "trixie-security"),
    ]
    assert [entry.suite for entry in aptsources.for_suite(entries(), "sid")] == ["sid"]


def test_a_host_without_an_archive_has_none():
    assert aptsources.for_suite(entries()[-1:], "bookworm") == []


def test_suites_and_command_lines():
    assert debian.suite_of("12") == "bookworm"
    assert debian.suite_of("bookworm") == "bookworm"
    for bad in ("-x", "a b", "../x", "A"):
        with pytest.raises(Invalid):
            debian.suite_of(bad)
    argv = debian.command("bookworm", "/t/r.tar", entries()[:1], ["curl", "git"], "/t/apt.conf")
    assert "--include=curl,git" in argv
    assert argv[-3:] == ["bookworm", "/t/r.tar", str(entries()[0])]
