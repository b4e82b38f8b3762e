"""create and start: two steps of what run does in one."""

from __future__ import annotations

from tests.e2e.conftest import Walled


def test_created_is_not_running(bothy: Walled) -> None:
    ident = bothy("create", "--name", "t-create", "busybox", "echo", "hello").ok().line
    state = bothy.engine.inspect(ident)["State"]
    assert (state["Status"], state["Running"], state["ExitCode"]) == ("created", False, 0)
    bothy("rm", "t-create").ok()


def test_start_attached_tells_output_and_code(bothy: Walled) -> None:
    bothy("create", "--name", "t-start", "busybox", "sh", "-c", "echo hello; exit 3").ok()
    done = bothy("start", "-a", "t-start")
    assert (done.code, done.out) == (3, "hello\n")
    state = bothy.engine.inspect("t-start")["State"]
    assert (state["Status"], state["ExitCode"]) == ("exited", 3)
    bothy("rm", "t-start").ok()


def test_start_again_keeps_the_files(bothy: Walled) -> None:
    bothy("create", "--name", "t-again", "busybox", "sh", "-c", "echo x >> /count; wc -l < /count").ok()
    assert bothy("start", "-a", "t-again").ok().line == "1"
    assert bothy("start", "-a", "t-again").ok().line == "2"
    bothy("rm", "t-again").ok()


def test_start_with_stdin(bothy: Walled) -> None:
    bothy("create", "-i", "--name", "t-stdin", "busybox", "cat").ok()
    assert bothy("start", "-ai", "t-stdin", stdin="typed").ok().out == "typed"
    bothy("rm", "t-stdin").ok()


def test_starting_a_running_one_changes_nothing(bothy: Walled) -> None:
    bothy("run", "-d", "--name", "t-run", "busybox", "sleep", "300").ok()
    pid = bothy.engine.inspect("t-run")["State"]["Pid"]
    bothy("start", "t-run").ok()
    assert bothy.engine.inspect("t-run")["State"]["Pid"] == pid
    bothy("rm", "-f", "t-run").ok()


def test_a_name_in_use_is_told(bothy: Walled) -> None:
    bothy("create", "--name", "t-name", "busybox", "true").ok()
    done = bothy("create", "--name", "t-name", "busybox", "true")
    assert done.code in (1, 125)
    assert "t-name" in done.err
    bothy("rm", "t-name").ok()


def test_start_of_nothing_is_told(bothy: Walled) -> None:
    done = bothy("start", "t-nothing")
    assert done.code == 1
    assert "t-nothing" in done.err
