"""Lists: tables that fit, ids, JSON lines, templates; and how sizes and times read."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from bothy.cli import human, ps, tables
from bothy.cli.images import image_rows, split
from bothy.cli.observe import cpu_percent
from bothy.cli.system import df_rows

ROWS = [{"ID": "1", "Name": "a", "Note": "some long words of text"}, {"ID": "22", "Name": "bbbb", "Note": "x"}]
COLUMNS = (("ID", "ID", 0), ("Name", "NAME", 0), ("Note", "NOTE", 1))


def shown(capsys: pytest.CaptureFixture[str], *args: Any, **options: Any) -> list[str]:
    tables.show(*args, **options)
    return capsys.readouterr().out.splitlines()


def test_columns_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, ROWS, COLUMNS) == ["ID   NAME   NOTE", "1    a      some long words of text", "22   bbbb   x"]


def test_an_empty_list_has_its_headings(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, [], COLUMNS) == ["ID   NAME   NOTE"]
    assert shown(capsys, [], COLUMNS, form="table {{.Name}}") == ["NAME"]
    assert shown(capsys, [], COLUMNS, form="{{.Name}}") == []


def test_a_table_fits_the_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "terminal_width", lambda: 22)
    lines = shown(capsys, ROWS, COLUMNS)
    assert max(map(len, lines)) == 22
    assert lines[1] == "1    a      some long…"


def test_columns_are_left_out_where_there_is_no_room(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    columns = (("ID", "ID", 0), ("Name", "NAME", -1), ("Note", "NOTE", -2))
    for room, heading in ((40, "ID   NAME   NOTE"), (20, "ID   NAME"), (8, "ID")):
        monkeypatch.setattr(tables, "terminal_width", lambda room=room: room)
        assert shown(capsys, ROWS, columns)[0] == heading


def test_ids_json_and_templates(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, ROWS, COLUMNS, ids="ID") == ["1", "22"]
    assert [json.loads(line) for line in shown(capsys, ROWS, COLUMNS, form="json")] == ROWS
    assert shown(capsys, ROWS, COLUMNS, form="{{.ID}}={{.Name}}") == ["1=a", "22=bbbb"]
    assert shown(capsys, ROWS, COLUMNS, form="table {{.Name}}\\t{{.ID}}") == ["NAME   ID", "a      1", "bbbb   22"]
    assert shown(capsys, [{"CreatedAt": "now"}], COLUMNS, form="table {{.CreatedAt}}") == ["CREATED AT", "now"]


def test_what_is_not_printable_does_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, [{"ID": "a\x1b[31m\nb"}], (("ID", "ID", 0),)) == ["ID", "a [31m b"]


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0B"), (999, "999B"), (1000, "1kB"), (12345, "12.3kB"), (4_013_000, "4.01MB"), (2.5e9, "2.5GB"), (999_900, "1000kB")],
)
def test_sizes(number: float, text: str) -> None:
    assert human.size(number) == text


def test_memory_sizes() -> None:
    assert human.binary_size(2 << 30) == "2GiB"
    assert human.binary_size(1945 * 1024 * 1024 + 300_000) == "1.9GiB"
    assert human.binary_size(5_000_000) == "4.768MiB"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "Less than a second"), (1, "1 second"), (59, "59 seconds"), (60, "About a minute"), (150, "2 minutes"),
        (3600, "About an hour"), (9000, "3 hours"), (47 * 3600, "47 hours"), (13 * 86400, "13 days"), (20 * 86400, "2 weeks"),
        (90 * 86400, "3 months"), (800 * 86400, "2 years"),
    ],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert human.duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:00Z", 0.0),
        ("2026-11-23T10:04:05Z", 1795428245.0),
        ("2024-02-29T23:59:59.5Z", 1709251199.5),
        ("2026-11-23T10:04:05.000000001+01:00", 1795424645.000000001),
        ("0001-01-01T00:00:00Z", 0.0),
        ("", 0.0),
        ("rubbish", 0.0),
    ],
)
def test_times(text: str, expected: float) -> None:
    assert human.epoch(text) == expected


def test_moments_of_since_and_until() -> None:
    assert human.moment("1700000000.5", "since") == "1700000000.5"
    assert human.moment("2026-11-23 10:04:05.123456789Z", "since") == "2026-11-23T10:04:05.123456789Z"
    assert human.moment("2026-11-23T11:04:05+01:00", "since") == "1795428245"
    assert abs(float(human.moment("10m", "since")) - (time.time() - 600)) < 5
    local = time.mktime((2026, 1, 31, 0, 0, 0, 0, 0, -1))
    assert float(human.moment("2026-01-31", "since")) == local


def test_ports_are_told_as_ranges() -> None:
    entries = [
        {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"IP": "0.0.0.0", "PrivatePort": 81, "PublicPort": 8081, "Type": "tcp"},
        {"IP": "::1", "PrivatePort": 53, "PublicPort": 53, "Type": "udp"},
        {"PrivatePort": 90, "Type": "tcp"},
        {"PrivatePort": 91, "Type": "tcp"},
        {"PrivatePort": 91, "Type": "udp"},
    ]
    assert ps.ports(entries) == "90-91/tcp, 91/udp, 0.0.0.0:8080-8081->80-81/tcp, [::1]:53->53/udp"
    assert ps.ports([]) == ""


def test_a_row_of_ps() -> None:
    entry = {
        "Id": "a" * 64, "Image": "busybox", "Command": "sh -c 'a long command line'", "Created": 0, "Status": "Up 2 minutes",
        "State": "running", "Names": ["/web"], "Labels": {"b": "2", "a": "1"}, "HostConfig": {"Runtime": "vm"},
        "Mounts": [{"Type": "volume", "Name": "data"}], "NetworkSettings": {"Networks": {"bridge": {}}},
    }  # fmt: skip
    row = ps.row(entry, is_full=False)
    assert (row["ID"], row["Names"], row["Wall"], row["Labels"]) == ("a" * 12, "web", "vm", "a=1,b=2")
    assert row["Command"] == '"sh -c \'a long comma…"'
    assert (row["Mounts"], row["LocalVolumes"], row["Networks"]) == ("data", "1", "bridge")
    assert ps.row(entry, is_full=True)["ID"] == "a" * 64


def test_an_image_has_a_row_for_each_name() -> None:
    image = {"Id": "sha256:" + "b" * 64, "RepoTags": ["host:5000/a:1", "b:2"], "Created": 0, "Size": 5_000_000}
    assert [(r["Repository"], r["Tag"], r["ID"]) for r in image_rows(image, is_full=False)] == [
        ("host:5000/a", "1", "b" * 12),
        ("b", "2", "b" * 12),
    ]
    assert image_rows({**image, "RepoTags": None}, is_full=False)[0]["Repository"] == "<none>"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a", ("a", "")), ("a:1", ("a", "1")), ("host:5000/a", ("host:5000/a", "")), ("host:5000/a:1", ("host:5000/a", "1"))],
)
def test_names_and_tags(name: str, expected: tuple[str, str]) -> None:
    assert split(name) == expected


def test_processor_time_in_percent() -> None:
    sample = {
        "cpu_stats": {"cpu_usage": {"total_usage": 2_000}, "system_cpu_usage": 20_000, "online_cpus": 2},
        "precpu_stats": {"cpu_usage": {"total_usage": 1_000}, "system_cpu_usage": 10_000},
    }
    assert cpu_percent(sample) == 20.0
    assert cpu_percent({}) == 0.0


def test_disk_usage() -> None:
    answer = {
        "LayersSize": 100,
        "Images": [{"Size": 60, "Containers": 1}, {"Size": 70, "Containers": 0}],
        "Containers": [{"State": "running", "SizeRw": 5}, {"State": "exited", "SizeRw": 7}],
        "Volumes": [{"UsageData": {"Size": 3, "RefCount": 0}}],
        "Templates": [{"Key": "k", "Size": 9, "Current": False}],
    }
    assert [(r["Type"], r["TotalCount"], r["Active"], r["Size"], r["Free"]) for r in df_rows(answer)] == [
        ("Images", "2", "1", 100, 70),
        ("Containers", "2", "1", 12, 7),
        ("Volumes", "1", "0", 3, 3),
        ("Machine templates", "1", "0", 9, 9),
    ]
