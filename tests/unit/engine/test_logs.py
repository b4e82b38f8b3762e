"""Logs: tails over rotated and gzipped files, filters, and followers that outlive rotations."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

from bothy.engine import logs
from bothy.engine.inotify import Inotify
from bothy.engine.logs import Wanted
from bothy.engine.model import LogEntry


def line(number: int, stream: str = "stdout") -> bytes:
    return (
        json.dumps({"log": f"{number}\n", "stream": stream, "time": f"2026-01-01T00:00:{number:02d}.000000000Z"}).encode() + b"\n"
    )


def numbers(path: Path, **wanted: object) -> list[int]:
    async def collect() -> list[int]:
        return [int(e.data) async for e in logs.read(str(path), Wanted(**wanted))]  # type: ignore[arg-type]

    return asyncio.run(collect())


def rotated(folder: Path) -> Path:
    """0-9 in a gzipped file, 10-19 in a plain one, 20-29 in the current one, odd ones on stderr."""
    path = folder / "container.log"
    texts = [b"".join(line(n, "stderr" if n % 2 else "stdout") for n in range(i, i + 10)) for i in (0, 10, 20)]
    with gzip.open(f"{path}.2.gz", "wb") as f:
        f.write(texts[0])
    Path(f"{path}.1").write_bytes(texts[1])
    path.write_bytes(texts[2])
    return path


def test_all_files_are_read_in_order(tmp_path: Path) -> None:
    assert numbers(rotated(tmp_path)) == list(range(30))


def test_tail_reaches_as_far_back_as_it_must(tmp_path: Path) -> None:
    path = rotated(tmp_path)
    for tail in (0, 1, 9, 10, 11, 20, 25, 30, 99):
        assert numbers(path, tail=tail) == list(range(30))[max(0, 30 - tail) :], tail


def test_streams_and_times_are_filtered(tmp_path: Path) -> None:
    path = rotated(tmp_path)
    assert numbers(path, stdout=False) == list(range(1, 30, 2))
    assert numbers(path, since="2026-01-01T00:00:18.000000000Z", until="2026-01-01T00:00:21.000000000Z") == [18, 19, 20, 21]


def test_a_line_cut_short_does_not_hide_the_next(tmp_path: Path) -> None:
    path = tmp_path / "container.log"
    path.write_bytes(line(1) + line(2)[:20] + line(3) + line(4)[:-5])
    assert numbers(path) == [1, 3]


def test_no_log_is_an_empty_log(tmp_path: Path) -> None:
    assert numbers(tmp_path / "container.log") == []


def test_a_follower_sees_everything_across_rotations(tmp_path: Path) -> None:
    path = tmp_path / "container.log"

    def rotate() -> None:
        for number in (2, 1):
            if os.path.exists(f"{path}.{number}"):
                os.rename(f"{path}.{number}", f"{path}.{number + 1}")
        os.rename(path, f"{path}.1")

    async def scenario() -> list[int]:
        path.write_bytes(line(0) + line(1))
        ended: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        inotify = Inotify()
        stream = logs.follow(str(path), Wanted(tail=1), inotify, ended)
        seen = [int((await anext(stream)).data)]
        with path.open("ab") as f:
            f.write(line(2))
        seen.append(int((await anext(stream)).data))
        waiting = asyncio.ensure_future(_next(stream))
        await asyncio.sleep(0)
        assert not waiting.done()
        # Half a line, then its rest, then two rotations before the follower has a turn.
        with path.open("ab") as f:
            f.write(line(3)[:9])
            f.flush()
            await asyncio.sleep(0)
            f.write(line(3)[9:])
        rotate()
        path.write_bytes(line(4))
        rotate()
        path.write_bytes(line(5))
        seen.append(int((await waiting).data))
        seen += [int((await anext(stream)).data) for _ in range(2)]
        with path.open("ab") as f:
            f.write(line(6))
        ended.set_result(None)
        seen += [int(e.data) async for e in stream]
        inotify.close()
        return seen

    assert asyncio.run(scenario()) == [1, 2, 3, 4, 5, 6]


async def _next(stream: AsyncIterator[LogEntry]) -> LogEntry:
    return await anext(stream)
