"""The json-file log: its lines, its pieces, its rotation, and what it survives."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from bothy.keeper.logs import PARTIAL, Log, entry, pieces
from bothy.keeper.loop import Loop
from bothy.keeper.model import LogPlan


class Bench:
    """A log in a folder, with a loop that is turned by hand."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.path = folder / "container.log"
        self.loop = Loop()
        self.log = Log(self.loop, LogPlan(str(self.path), **options))

    def lines(self) -> list[dict[str, str]]:
        return [json.loads(line) for line in self.path.read_bytes().splitlines()]

    def texts(self) -> list[str]:
        return [line["log"] for line in self.lines()]

    def settle(self) -> None:
        """Let the compression end."""
        while self.log._compressor is not None:
            self.loop.turn()

    def close(self) -> None:
        self.log.close()
        self.loop.close()


def test_lines_of_both_streams(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.log.feed(1, b"one\ntwo")
    bench.log.feed(2, b"err\n")
    bench.log.feed(1, b" more\n")
    assert [(line["log"], line["stream"]) for line in bench.lines()] == [
        ("one\n", "stdout"), ("err\n", "stderr"), ("two more\n", "stdout"),
    ]  # fmt: skip
    assert list(bench.lines()[0]) == ["log", "stream", "time"]
    assert len(bench.lines()[0]["time"]) == len("2024-05-01T10:00:00.123456789Z")
    bench.close()


def test_bytes_are_those_of_docker() -> None:
    moment = "2024-05-01T10:00:00.123456789Z"
    assert entry("a\n", 1, moment) == '{"log":"a\\n","stream":"stdout","time":"2024-05-01T10:00:00.123456789Z"}\n'
    assert entry('"\\\t\x1bö\n', 2, moment).startswith('{"log":"\\"\\\\\\t\\u001bö\\n","stream":"stderr"')


def test_markup_is_escaped_and_carriage_returns_do_not_end_lines(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.log.feed(1, "<a>&\u2028\rb\r\n".encode())
    assert bench.texts() == ["<a>&\u2028\rb\r\n"]
    assert b'"\\u003ca\\u003e\\u0026\\u2028\\rb\\r\\n"' in bench.path.read_bytes()
    bench.close()


def test_each_bad_byte_becomes_one_replacement(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.log.feed(1, b"a\xff\xe2\x82b\n")
    assert bench.texts() == ["a\ufffd\ufffd\ufffdb\n"]
    bench.close()


def test_unfinished_line_is_written_at_the_end(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.log.feed(1, b"prompt> ")
    assert bench.texts() == []
    bench.log.finish(1)
    bench.log.finish(1)
    assert bench.texts() == ["prompt> "]
    bench.close()


@pytest.mark.parametrize("length", [PARTIAL - 1, PARTIAL, PARTIAL + 1, 3 * PARTIAL + 5])
@pytest.mark.parametrize("step", [1000, 65536])
def test_long_lines_are_cut(tmp_path: Path, length: int, step: int) -> None:
    bench = Bench(tmp_path)
    data = b"x" * length + b"\nshort\n"
    for start in range(0, len(data), step):
        bench.log.feed(1, data[start : start + step])
    texts = bench.texts()
    assert "".join(texts).encode() == data
    assert all(len(text) <= PARTIAL for text in texts)
    assert all(len(text) == PARTIAL and not text.endswith("\n") for text in texts[: length // PARTIAL])
    assert texts[-1] == "short\n"
    bench.close()


def test_cut_is_not_inside_a_character() -> None:
    line = ("x" + "ö" * PARTIAL).encode()
    parts = pieces(line)
    assert b"".join(parts) == line
    assert [part.decode() for part in parts]
    assert len(pieces(b"\x80" * (PARTIAL + 1))) == 2


def test_rotation_compresses_and_forgets(tmp_path: Path) -> None:
    bench = Bench(tmp_path, max_size=1000, max_files=3)
    for number in range(60):
        bench.log.feed(1, b"line %03d\n" % number)
        bench.settle()
    names = sorted(os.listdir(tmp_path))
    assert names == ["container.log", "container.log.1.gz", "container.log.2.gz"]
    assert bench.path.stat().st_size <= 1000
    text = b"".join(gzip.decompress((tmp_path / f"container.log.{n}.gz").read_bytes()) for n in (2, 1)) + bench.path.read_bytes()
    numbers = [int(json.loads(line)["log"][5:8]) for line in text.splitlines()]
    assert numbers == list(range(numbers[0], 60))
    bench.close()


def test_rotation_without_compression_and_with_one_file(tmp_path: Path) -> None:
    bench = Bench(tmp_path, max_size=300, max_files=2, compress=False)
    for _ in range(20):
        bench.log.feed(1, b"line\n")
    assert sorted(os.listdir(tmp_path)) == ["container.log", "container.log.1"]
    bench.close()
    single = Bench(tmp_path, max_size=300, max_files=1)
    for _ in range(20):
        single.log.feed(1, b"line\n")
    assert single.path.stat().st_size <= 300
    single.close()


def test_fast_rotation_loses_nothing_of_what_is_kept(tmp_path: Path) -> None:
    bench = Bench(tmp_path, max_size=50_000, max_files=100)
    bench.log.feed(1, b"".join(b"%d\n" % n for n in range(5000)))
    bench.log.feed(1, b"".join(b"%d\n" % n for n in range(5000, 10000)))
    bench.settle()
    bench.close()
    found: list[int] = []
    for path in sorted(tmp_path.iterdir(), key=lambda p: int([*p.name.split("."), "0"][2]), reverse=True):
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        found += [int(json.loads(line)["log"]) for line in data.splitlines()]
    assert sorted(found) == list(range(10000))


def test_half_a_line_of_a_killed_keeper_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "container.log"
    path.write_bytes(entry("whole\n", 1, "t").encode() + b'{"log":"ha')
    bench = Bench(tmp_path)
    bench.log.feed(1, b"next\n")
    assert bench.texts() == ["whole\n", "next\n"]
    bench.close()


def test_full_disk_loses_lines_and_says_so_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bench = Bench(tmp_path)
    os.close(bench.log._fd)
    bench.log._fd = os.open("/dev/full", os.O_RDWR)
    bench.log.feed(1, b"lost\n")
    bench.log.feed(1, b"lost too\n")
    assert capfd.readouterr().err.count("No space left") == 1
    bench.close()


def test_link_in_place_of_the_log_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "container.log").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        Log(Loop(), LogPlan(str(tmp_path / "container.log")))
    assert not (tmp_path / "elsewhere").exists()
