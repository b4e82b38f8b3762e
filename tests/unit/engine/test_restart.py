"""Restart policies as values: how long is waited, what is counted, what a new daemon starts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bothy.engine.containers import ending
from bothy.engine.model import Config, HostConfig, NetworkingConfig, RestartPolicy, Status, Wall, Workload
from bothy.engine.workloads import Live

SECOND = 10**9
ALWAYS, UNLESS, FAILURE, NO = (RestartPolicy(name) for name in ("always", "unless-stopped", "on-failure", "no"))


def record(policy: RestartPolicy, **changes: object) -> Workload:
    base = Workload(
        "ab" * 32, "name", Wall.CONTAINER, "sha256:x", "image", Config(), HostConfig(restart_policy=policy), NetworkingConfig(),
        "2026-01-01T00:00:00.000000000Z", "prog", [], status=Status.EXITED, started="2026-01-01T00:00:01.000000000Z",
    )  # fmt: skip
    return replace(base, **changes)  # type: ignore[arg-type]


def test_delay_doubles_up_to_a_minute_and_begins_anew_after_ten_seconds() -> None:
    live = Live(record(ALWAYS))
    delays = [ending.restart_delay(live, 0, SECOND) for _ in range(12)]
    assert delays[:4] == [0.1, 0.2, 0.4, 0.8]
    assert delays[9:] == [pytest.approx(51.2), 60.0, 60.0]
    assert ending.restart_delay(live, 0, 10 * SECOND - 1) == 60.0
    assert ending.restart_delay(live, 0, 10 * SECOND) == 0.1
    assert ending.restart_delay(live, 0, 0) == 0.2


@pytest.mark.parametrize(
    ("policy", "code", "count", "again"),
    [
        (ALWAYS, 0, 99, True),
        (UNLESS, 1, 99, True),
        (FAILURE, 1, 99, True),
        (FAILURE, 0, 0, False),
        (RestartPolicy("on-failure", 3), 1, 2, True),
        (RestartPolicy("on-failure", 3), 1, 3, False),
        (NO, 1, 0, False),
        (RestartPolicy(), 1, 0, False),
    ],
)
def test_which_exits_are_followed_by_a_start(policy: RestartPolicy, code: int, count: int, *, again: bool) -> None:
    assert (ending.restart_delay(Live(record(policy, restart_count=count)), code, 0) is not None) is again


@pytest.mark.parametrize("policy", [ALWAYS, UNLESS, FAILURE], ids=str)
def test_none_is_started_again_that_was_stopped_by_hand(policy: RestartPolicy) -> None:
    assert ending.restart_delay(Live(record(policy, manually_stopped=True)), 1, 0) is None
    live = Live(record(policy))
    live.stopping = True
    assert ending.restart_delay(live, 1, 0) is None


@pytest.mark.parametrize(
    ("policy", "changes", "started"),
    [
        (ALWAYS, {}, True),
        (ALWAYS, {"manually_stopped": True}, True),
        (UNLESS, {}, True),
        (UNLESS, {"manually_stopped": True}, False),
        (FAILURE, {"exit_code": 1}, False),
        (FAILURE, {"exit_code": 1, "status": Status.RESTARTING}, True),
        (NO, {}, False),
        (ALWAYS, {"status": Status.RUNNING}, False),
        (ALWAYS, {"status": Status.CREATED, "started": ""}, False),
    ],
)
def test_what_a_new_daemon_starts(policy: RestartPolicy, changes: dict[str, object], *, started: bool) -> None:
    assert ending.after_boot(record(policy, **changes)) is started
