from __future__ import annotations

import time
from pathlib import Path

import pytest

from bothy.machines import accelerator, payload, tsc
from bothy.machines.accelerator import Accelerator
from bothy.paths import Paths


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "root", tmp_path / "run")


def test_without_a_device_it_is_emulation_and_the_reason_is_told(paths: Paths, tmp_path: Path) -> None:
    found = accelerator.probe(paths, tmp_path / "kvm")
    assert found.name == "tcg"
    assert found.reason == f"{tmp_path / 'kvm'} can not be opened: No such file or directory"
    assert accelerator.known(paths) == found


def test_the_verdict_is_kept_until_the_host_is_another(paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def probe(device: Path, limit: float) -> Accelerator:
        calls.append(device)
        return Accelerator("kvm", "for the test")

    monkeypatch.setattr(accelerator, "_probe", probe)
    device = tmp_path / "kvm"
    first = accelerator.probe(paths, device)
    assert accelerator.probe(paths, device) == first
    assert len(calls) == 1
    device.touch()
    assert accelerator.probe(paths, device).name == "kvm"
    assert len(calls) == 2


def test_a_verdict_can_be_disproved(paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = tmp_path / "kvm"
    monkeypatch.setattr(accelerator, "_probe", lambda device, limit: Accelerator("kvm", "a payload ran"))
    before = accelerator.probe(paths, device)
    accelerator.disprove(paths, "a machine did not come up", device)
    assert accelerator.probe(paths, device) == Accelerator("tcg", "a machine did not come up", before.tsc)


def test_a_reboot_does_not_change_the_clock(paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tsc, "measure", lambda: 2_600_000)
    accelerator.probe(paths, tmp_path / "kvm")
    monkeypatch.setattr(tsc, "measure", lambda: 2_600_003)
    assert accelerator.probe(paths, tmp_path / "other").tsc == 2_600_000
    monkeypatch.setattr(tsc, "measure", lambda: 3_000_000)
    assert accelerator.probe(paths, tmp_path / "third").tsc == 3_000_000


def test_the_payload_is_a_boot_sector() -> None:
    sector = payload.boot_sector()
    assert len(sector) == 512
    assert sector[-2:] == b"\x55\xaa"


def test_the_counter_is_measured() -> None:
    began = time.monotonic()
    frequencies = [tsc.measure() for _ in range(2)]
    assert time.monotonic() - began < 5
    assert frequencies[0] > 100_000
    assert abs(frequencies[0] - frequencies[1]) < frequencies[0] / 1000
