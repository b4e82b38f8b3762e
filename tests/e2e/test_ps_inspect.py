"""ps and inspect: what is there, and all about it."""

from __future__ import annotations

import json

from tests.e2e.conftest import Walled


def test_ps_lists_running_and_all(bothy: Walled) -> None:
    bothy("run", "-d", "--name", "t-up", "busybox", "sleep", "300").ok()
    bothy("run", "--name", "t-done", "busybox", "false")
    assert bothy("ps", "--format", "{{.Names}}").ok().out.split() == ["t-up"]
    assert bothy("ps", "-a", "--format", "{{.Names}}").ok().out.split() == ["t-done", "t-up"]
    rows = [json.loads(line) for line in bothy("ps", "-a", "--format", "json").ok().out.splitlines()]
    by_name = {row["Names"]: row for row in rows}
    assert by_name["t-done"]["Status"].startswith("Exited (1)")
    assert by_name["t-up"]["Status"].startswith("Up")
    assert by_name["t-up"]["State"] == "running"
    table = bothy("ps").ok().out.splitlines()
    assert table[0].startswith("CONTAINER ID")
    assert "t-up" in table[1]
    bothy("rm", "-f", "t-up", "t-done").ok()


def test_ps_filters(bothy: Walled) -> None:
    one = bothy("run", "-d", "--label", "tier=web", "--name", "t-web", "busybox", "sleep", "300").ok().line
    bothy("create", "--label", "tier=db", "--name", "t-db", "busybox", "true").ok()
    assert bothy("ps", "-q", "--no-trunc", "--filter", "label=tier=web").ok().line == one
    assert bothy("ps", "-aq", "--filter", "label=tier").ok().out.count("\n") == 2
    assert bothy("ps", "-a", "--filter", "status=created", "--format", "{{.Names}}").ok().line == "t-db"
    assert bothy("ps", "-a", "--filter", "name=t-w", "--format", "{{.Names}}").ok().line == "t-web"
    assert bothy("ps", "--filter", "nonsense=1").code == 1
    bothy("rm", "-f", "t-web", "t-db").ok()


def test_inspect_tells_all(bothy: Walled) -> None:
    bothy(
        "run", "-d", "--name", "t-all", "-e", "K=V", "-l", "a=b", "-w", "/srv", "--memory", "256m", "--hostname", "box",
        "busybox", "sleep", "300",
    ).ok()  # fmt: skip
    seen = bothy.engine.inspect("t-all")
    assert seen["Name"] == "/t-all"
    assert seen["State"]["Status"] == "running"
    assert seen["State"]["Pid"] > 0
    assert "K=V" in seen["Config"]["Env"]
    assert seen["Config"]["Labels"] == {"a": "b"}
    assert (seen["Config"]["Hostname"], seen["Config"]["WorkingDir"]) == ("box", "/srv")
    assert (seen["Path"], seen["Args"]) == ("sleep", ["300"])
    assert seen["HostConfig"]["Memory"] == 256 << 20
    assert (seen["HostConfig"]["Runtime"] == "vm") == (bothy.wall == "vm")
    address = seen["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    assert bothy("inspect", "-f", "{{.State.Running}} {{.NetworkSettings.IPAddress}}", "t-all").ok().line == f"true {address}"
    bothy("rm", "-f", "t-all").ok()


def test_inspect_of_nothing(bothy: Walled) -> None:
    done = bothy("inspect", "t-nothing")
    assert done.code == 1
    assert "t-nothing" in done.err
