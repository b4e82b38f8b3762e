"""Records: what is written is what is read, names are unique, a full disk is told and leaves the old state."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bothy.engine.model import Config, Endpoint, HostConfig, MountRecord, NetworkingConfig, PublishedPort, Status, Wall, Workload
from bothy.engine.records import MIGRATIONS, Records
from bothy.engine.workloads import Workloads
from bothy.errors import Broken, Conflict, NotFound, Unavailable
from bothy.keeper.model import Exit


def workload(identity: str = "a" * 64, name: str = "name", **changes: object) -> Workload:
    base = Workload(
        identity, name, Wall.VM, "sha256:x", "image", Config(cmd=["x"], labels={"l": "é"}, stop_timeout=0), HostConfig(memory=5, binds=["/a:/b"]),
        NetworkingConfig(), "2026-01-01T00:00:00.000000000Z", "x", ["y"], mounts=[MountRecord("bind", "/a", "/b")],
    )  # fmt: skip
    return replace(base, **changes)  # type: ignore[arg-type]


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    opened = Records(tmp_path / "folder" / "bothy.db")
    yield opened
    opened.close()


def test_what_is_written_is_read(records: Records) -> None:
    first = workload()
    records.insert(first)
    assert records.workloads() == [first]
    changed = replace(
        first, name="other", status=Status.RUNNING, pid=7, id_base=9, endpoints=[Endpoint("n", "bridge", "10.0.0.2/8", "10.0.0.1", "02:")],
        ports=[PublishedPort(80, "tcp", "", 8080)], warnings=["w"], exit_code=3, error="e", oom_killed=True, started="s", finished="f",
        restart_count=2, manually_stopped=True,
    )  # fmt: skip
    records.save_state(changed)
    assert records.workloads() == [changed]
    whole = replace(changed, host_config=HostConfig(memory=6))
    records.save_state(whole)
    assert records.workloads()[0].host_config.memory == 5
    records.save(whole)
    assert records.workloads() == [whole]
    records.delete(first.id)
    assert records.workloads() == []


def test_names_and_ids_are_unique(records: Records) -> None:
    records.insert(workload())
    for other in (workload("b" * 64), workload(name="other")):
        with pytest.raises(Conflict):
            records.insert(other)
    assert len(records.workloads()) == 1


def test_migrations_are_run_once_and_newer_files_refused(tmp_path: Path) -> None:
    file = tmp_path / "bothy.db"
    Records(file).close()
    again = Records(file)
    identity = again.meta("id", "first")
    assert again.meta("id", "second") == identity == "first"
    again.close()
    with sqlite3.connect(file) as db:
        db.execute("INSERT INTO migrations VALUES(?)", (len(MIGRATIONS) + 1,))
    db.close()
    with pytest.raises(Broken, match="newer"):
        Records(file)


def test_a_damaged_record_is_told(tmp_path: Path) -> None:
    file = tmp_path / "bothy.db"
    records = Records(file)
    records.insert(workload())
    with sqlite3.connect(file) as db:
        db.execute("UPDATE workloads SET state='{\"status\": 5}'")
    db.close()
    with pytest.raises(Broken, match="name"):
        records.workloads()
    records.close()


def test_a_full_disk_is_told_and_changes_nothing(tmp_path: Path) -> None:
    records = Records(tmp_path / "bothy.db")
    table = Workloads(records)
    live = table.insert(workload())
    records._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    records._db.execute(f"PRAGMA max_page_count={records._db.execute('PRAGMA page_count').fetchone()[0]}")
    with pytest.raises(Unavailable) as caught:
        table.insert(workload("b" * 64, "big", error="x" * 100_000))
    assert caught.value.hint
    assert [w.name for w in records.workloads()] == ["name"]
    with pytest.raises(NotFound):
        table.find("big")
    # What has happened is shown all the same, and written as soon as it can be.
    table.note(live, error="y" * 100_000, status=Status.EXITED)
    assert live.record.status is Status.EXITED
    assert records.workloads()[0].status is Status.CREATED
    records._db.execute("PRAGMA max_page_count=100000")
    table.insert(workload("c" * 64, "third"))
    table.change(table.find("third"), exit_code=1)
    assert {w.name: w.status for w in records.workloads()}["name"] is Status.EXITED
    records.close()


def test_references_are_found_as_docker_does(records: Records) -> None:
    table = Workloads(records)
    table.insert(workload("ab" * 32, "one"))
    table.insert(workload("ac" * 32, "abab"))
    assert table.find("one").id == "ab" * 32
    assert table.find("/abab").id == "ac" * 32  # a name goes before the beginning of an id
    assert table.find("ababa").id == "ab" * 32
    with pytest.raises(Conflict):
        table.find("a")
    for ref in ("", "zz"):
        with pytest.raises(NotFound):
            table.find(ref)
    table.change(table.find("one"), name="uno")
    with pytest.raises(NotFound):
        table.find("one")
    table.forget(table.find("uno"))
    with pytest.raises(NotFound):
        table.find("ab" * 32)


def test_documents(records: Records) -> None:
    records.put_document("exec", "k", "1")
    records.put_document("exec", "k", "2")
    records.put_document("other", "k", "3")
    assert records.documents("exec") == {"k": "2"}
    records.delete_document("exec", "k")
    assert records.documents("exec") == {}


def test_an_exit_has_the_fields_of_the_record(records: Records) -> None:
    live = Workloads(records).insert(workload(exit_code=4, started="s", finished="f", oom_killed=True, error="e"))
    assert live.last_exit() == Exit(4, "s", "f", oom=True, error="e")
