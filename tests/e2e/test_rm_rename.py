"""rm and rename."""

from __future__ import annotations

from tests.e2e.conftest import Walled


def test_rm_refuses_a_running_one_unless_forced(bothy: Walled) -> None:
    bothy("run", "-d", "--name", "t-rm", "busybox", "sleep", "300").ok()
    done = bothy("rm", "t-rm")
    assert done.code == 1
    assert "t-rm" in done.err
    assert bothy("rm", "-f", "t-rm").ok().line == "t-rm"
    assert bothy("inspect", "t-rm").code == 1


def test_rm_of_several_goes_on_after_a_missing_one(bothy: Walled) -> None:
    bothy("create", "--name", "t-a", "busybox", "true").ok()
    bothy("create", "--name", "t-b", "busybox", "true").ok()
    done = bothy("rm", "t-a", "t-missing", "t-b")
    assert done.code == 1
    assert done.out.split() == ["t-a", "t-b"]
    assert "t-missing" in done.err


def test_rename(bothy: Walled) -> None:
    ident = bothy("run", "-d", "--name", "t-old", "busybox", "sleep", "300").ok().line
    bothy("rename", "t-old", "t-new").ok()
    assert bothy("inspect", "t-old").code == 1
    assert bothy.engine.inspect("t-new")["Id"] == ident
    assert bothy.engine.inspect(ident[:12])["Name"] == "/t-new"
    bothy("rm", "-f", "t-new").ok()


def test_rename_to_a_taken_or_bad_name(bothy: Walled) -> None:
    bothy("create", "--name", "t-one", "busybox", "true").ok()
    bothy("create", "--name", "t-two", "busybox", "true").ok()
    assert "t-two" in bothy("rename", "t-one", "t-two").err
    assert bothy("rename", "t-one", "bad/name").code == 1
    assert bothy.engine.inspect("t-one")["Name"] == "/t-one"
    bothy("rm", "t-one", "t-two").ok()
