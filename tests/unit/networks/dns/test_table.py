"""The files by which the server is told."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from bothy.networks.dns import table
from bothy.networks.dns.table import Endpoint
from bothy.networks.dns.zone import Workload
from bothy.paths import Paths

WEB = Endpoint("n1", ["172.30.0.2", "fd00::2"], ["web", "0123456789ab"])


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "root", tmp_path / "run")


def test_a_workload_is_one_file_that_the_server_understands(paths: Paths) -> None:
    table.tell(paths, "w", [WEB, Endpoint("n2", ["172.31.0.2"], ["web"])], ["192.0.2.1"])
    place = Path(table.folder(paths))
    told = json.loads((place / "w").read_bytes())
    assert told["endpoints"][0] == {"network": "n1", "addresses": ["172.30.0.2", "fd00::2"], "names": ["web", "0123456789ab"]}
    workload = Workload(told)
    assert list(workload.endpoints) == ["n1", "n2"]
    assert workload.servers == ["192.0.2.1"]
    assert os.listdir(place) == ["w"]
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert stat.S_IMODE((place / "w").stat().st_mode) == 0o600


def test_it_is_replaced_and_forgotten(paths: Paths) -> None:
    table.tell(paths, "w", [WEB])
    table.tell(paths, "v", [WEB])
    table.tell(paths, "w", [Endpoint("n1", ["172.30.0.3"], ["web"])])
    assert json.loads((Path(table.folder(paths)) / "w").read_bytes())["endpoints"][0]["addresses"] == ["172.30.0.3"]
    assert table.told(paths) == {"w", "v"}
    table.forget(paths, "w")
    table.forget(paths, "w")
    assert table.told(paths) == {"v"}


def test_what_is_known_is_not_told_again(paths: Paths) -> None:
    table.tell(paths, "w", [WEB])
    inode = (Path(table.folder(paths)) / "w").stat().st_ino
    table.tell(paths, "w", [WEB])
    assert (Path(table.folder(paths)) / "w").stat().st_ino == inode
    table.tell(paths, "w", [WEB], ["192.0.2.1"])
    assert (Path(table.folder(paths)) / "w").stat().st_ino != inode


def test_without_an_endpoint_there_are_no_names(paths: Paths) -> None:
    table.tell(paths, "w", [WEB])
    table.tell(paths, "w", [])
    assert table.told(paths) == set()


def test_before_anything_was_told(paths: Paths) -> None:
    assert table.told(paths) == set()
    table.forget(paths, "w")
