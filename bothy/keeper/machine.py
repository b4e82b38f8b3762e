"""The wall of a machine: `bothy.keeper.workload.Workload` over QEMU and the frames of the agent in its guest.

    core ── start, exec, write, hold … ──▶ MachineWorkload ── frames ──▶ agent      one virtio-serial port
         ◀── feed, eof, exited ───────────                 ◀─ frames ───
                                                            ── QMP ────▶ QEMU       stop, cont

Everything that comes from QEMU or the guest is taken for an attacker's: shapes are checked, a stream that does not keep to its
window ends the machine, and nothing that is said there names a file or a process of the host.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

from bothy.containers.cgroups import hierarchies as cgroups
from bothy.errors import StageError
from bothy.keeper import workload as wall
from bothy.keeper.cabling import Cabling
from bothy.keeper.guest_process import GuestProcess
from bothy.keeper.loop import IN, OUT, Loop, Timer
from bothy.keeper.model import ExecPlan
from bothy.keeper.monitor import Monitor
from bothy.keeper.questions import Questions
from bothy.keeper.resizing import Limits
from bothy.keeper.stillness import Stillness
from bothy.linux.hosts import HostsChange
from bothy.linux.links import Attachment, Interface
from bothy.machines import launch, qmp, wire
from bothy.machines.launch import Clone
from bothy.machines.model import MachinePlan
from bothy.oci.runtime import DeviceRule, Memory, Pids, Resources

START_LIMIT = 60.0  # seconds until the program runs; a quarter of one on an idle host
CHANGE_LIMIT = 10.0  # seconds for a guest to show or hide a network card, or to change a file
KILL_LIMIT = 8.0  # seconds for a guest whose programs are killed to write what they wrote to its disk
_READ = 256 * 1024
_CROWDED = 256 * 1024
_LAST_WORDS = 4096
_MOST_WARNINGS = 20
_MAIN = 0
_OVERHEAD = 512 << 20  # QEMU itself, and the translated code of an emulated guest
_THREADS = 512
_DEVICES = ((1, 3), (1, 9), (10, 232))  # null, urandom, kvm
_KILLED = 137


class MachineWorkload:
    """One machine; `folder` is the keeper's, `stdin` as in KeeperPlan. `error` says what of ours went wrong, once it has."""

    def __init__(self, loop: Loop, plan: MachinePlan, folder: str, *, stdin: bool) -> None:
        self.error = ""
        self._loop = loop
        self._plan = plan
        self._folder = folder
        self._stdin = stdin
        self._cgroup = cgroups.of_this_host().at(plan.cgroup) if plan.cgroup else None
        self._clone: Clone | None = None
        self._cabling: Cabling | None = None
        self._ended: Clone | None = None
        self._decoder = wire.Decoder()
        self._out = bytearray()
        self._processes: dict[int, GuestProcess] = {}
        self._questions = Questions(loop, self.send)
        self._monitor: Monitor | None = None
        self._limits: Limits | None = None
        self._oom = 0
        self._stillness = Stillness(loop, self)
        self._words = b""
        self._ending = ""
        self._lost = False
        self._patience: Timer | None = None
        self._mercy: Timer | None = None

    # The core's requests.

    def wait_ahead(self, ready: Callable[[], None]) -> None:
        """Have QEMU go on from its template and wait to be used; `ready` is called when it does.

        What boot will do is gone through once before: under emulation it is code that runs for the first time that costs.
        Raises StageError; `close` is still to be called.
        """
        clone = self._launch(ahead=True)
        self.ask({"op": "rehearse", **launch.rehearsal(self._plan, clone)}, lambda _: ready())

    def assign(self, plan: MachinePlan, *, stdin: bool) -> None:
        """What it will be, for one that has waited. Its hardware is what it was launched with."""
        self._plan = plan
        self._stdin = stdin

    @property
    def is_lost(self) -> bool:
        """QEMU has ended while nothing ran in it yet."""
        return self._lost

    def start(self, session: wall.Session, started: wall.Started) -> None:
        clone = self._clone or self._launch()
        assert self._cabling is not None
        self._cabling.lead(self._plan.attachments)
        self._patience = self._loop.later(START_LIMIT, lambda: self._break(f"no answer from the guest in {START_LIMIT:.0f} s"))
        message = launch.boot_message(self._plan, clone, stdin=self._stdin)
        self._run(_MAIN, session, started, message)

    def _launch(self, *, ahead: bool = False) -> Clone:
        if self._cgroup is None:
            clone = launch.launch(self._plan, self._folder, ahead=ahead)
        else:
            self._cgroup.create(_limits(self._plan))
            group = self._cgroup.fork_fd()
            clone = launch.launch(self._plan, self._folder, self._cgroup.join, cgroup=group, ahead=ahead)
        self._clone = clone
        self._cabling = Cabling(self._loop, clone, lambda message, reply: self.ask(message, reply, limit=CHANGE_LIMIT))
        self._loop.child(clone.pid, self._qemu_ended)
        self._loop.watch(clone.agent.fileno(), IN, self._agent_event)
        self._loop.watch(clone.words, IN, self._words_event)
        self._loop.watch(clone.guard.listener, IN, self._guard_event)
        refused = "the state of the template was refused"
        self._monitor = Monitor(self._loop, clone.monitor, launch.ORDERS, lambda why: self._break(f"{refused}: {why}"), self._told)
        self._limits = Limits(self._loop, self, self._plan, self._cgroup, clone)
        return clone

    def exec(self, plan: ExecPlan, session: wall.Session, started: wall.Started) -> None:
        number = self._free_number("exec")
        message = {"op": "exec", "number": number, **launch.order(plan.process, stdin=plan.stdin)}
        self._run(number, session, started, message)

    def _free_number(self, stage: str) -> int:
        number = next((n for n in range(1, wire.MAX_PROCESS + 1) if n not in self._processes), None)
        if number is None:
            raise StageError(stage, "too many programs run in the machine")
        return number

    def kill(self, *, discard: bool = False) -> None:
        """What a killed program wrote is in its files, as in a container: the guest kills it, and writes its cache to the disk.

        With `discard`, before the program runs, and for a guest that does not get it done in time, QEMU is killed.
        """
        if self._clone is None:
            return
        self._ending = self._ending or "killed"
        main = self._processes.get(_MAIN)
        if discard or self._plan.ephemeral or main is None or not main.pid:
            _kill(self._clone.pid)
        elif self._mercy is None:
            self._mercy = self._loop.later(KILL_LIMIT, lambda: self.kill(discard=True))
            main.signal(signal.SIGKILL)
            self.order("cont", lambda _: None)

    def visit(self, session: wall.Session, started: wall.Started) -> None:
        """A visit of the guest's files, also of a machine that is paused. It is over when its session's program has ended."""

        def go(refusal: BaseException | None) -> None:
            if refusal is not None:
                started(refusal)
                return
            try:
                number = self._free_number("visit")
                self._run(number, session, outcome, {"op": "visit", "number": number})
            except StageError as exc:
                outcome(exc)

        def outcome(result: wall.Process | BaseException) -> None:
            if isinstance(result, BaseException):
                self._stillness.leave()
            started(result)

        self._stillness.enter(go)

    def visited(self) -> None:
        """A visit that was begun is over."""
        self._stillness.leave()

    def pause(self, done: wall.Done) -> None:
        self._stillness.pause(done)

    def resume(self, done: wall.Done) -> None:
        self._stillness.resume(done)

    def tell_time(self) -> None:
        """Set the guest's clock."""
        self.say("clock", time=time.time_ns())

    def top(self, args: str, done: wall.Done) -> None:
        def check(answer: dict[str, Any] | BaseException) -> None:
            done(_table(answer) if isinstance(answer, dict) else answer)

        self.ask({"op": "top", "args": args}, check)

    def stats(self, done: wall.Done) -> None:
        def limited(answer: dict[str, Any] | BaseException) -> None:
            memory = answer.get("memory_stats") if isinstance(answer, dict) else None
            if isinstance(memory, dict) and self._limits is not None:
                memory["limit"] = self._limits.memory
            done(answer)

        self.ask({"op": "stats"}, limited)

    def update(self, resources: Resources, done: wall.Done) -> None:
        limits = self._limits
        assert limits is not None
        self._while_it_runs(done, lambda told: limits.update(resources, told))

    def connect(self, attachment: Attachment, done: wall.Done) -> None:
        cabling = self._cabling
        assert cabling is not None
        self._while_it_runs(done, lambda told: cabling.connect(attachment, told))

    def disconnect(self, link: str, heir: Interface | None, done: wall.Done) -> None:
        cabling = self._cabling
        assert cabling is not None
        self._while_it_runs(done, lambda told: cabling.disconnect(link, heir, told))

    def hosts(self, change: HostsChange, done: wall.Done) -> None:
        message = {"op": "hosts", "change": vars(change)}
        self._while_it_runs(done, lambda told: self.ask(message, told, limit=CHANGE_LIMIT))

    def _while_it_runs(self, done: wall.Done, change: Callable[[wall.Done], None]) -> None:
        """Something that the guest has to do, and does also for a machine that is paused: it goes on for it."""

        def go(refusal: BaseException | None) -> None:
            if refusal is not None:
                done(refusal)
                return
            try:
                change(told)
            except (StageError, OSError) as exc:
                told(exc)

        def told(outcome: dict[str, Any] | BaseException) -> None:
            self._stillness.leave()
            done(outcome)

        self._stillness.enter(go)

    def oom_count(self) -> int:
        return self._oom

    def close(self) -> None:
        clone, self._clone = self._clone, None
        for timer in (self._patience, self._mercy):
            if timer is not None:
                timer.cancel()
        if clone is not None:
            self._end(clone)
        if self._cgroup is not None:
            self._cgroup.kill()
            self._cgroup.remove()
        try:
            os.rmdir(f"{self._folder}/jail")
        except OSError:
            pass

    def release(self) -> None:
        """After `close`: let go of what takes time to let go of. The process's end does it too."""
        if self._ended is not None:
            self._ended.release()
            self._ended = None

    def _end(self, clone: Clone) -> None:
        self._ended = clone
        for fd in (clone.agent.fileno(), clone.monitor.fileno(), clone.words, clone.guard.listener):
            self._loop.forget(fd)
        _kill(clone.pid)
        try:
            os.waitpid(clone.pid, 0)
        except ChildProcessError:
            pass  # the loop was first
        clone.close()

    # To the guest.

    @property
    def crowded(self) -> bool:
        """More waits to be sent than should."""
        return len(self._out) >= _CROWDED

    def send(self, data: bytes) -> None:
        """Send encoded frames, now or when there is room."""
        if self._clone is None:
            return
        if not self._out:
            data = data[self._write(data) :]
        if data:
            self._out += data
            self._loop.watch(self._clone.agent.fileno(), IN | OUT, self._agent_event)

    def say(self, op: str, **rest: Any) -> None:
        """A message that needs no answer."""
        self.send(wire.encode_order({"op": op, **rest}))

    def ask(self, message: dict[str, Any], reply: wall.Done, *, limit: float = 0) -> None:
        """Have `reply` called with the guest's answer, or with why there is none: also after `limit` seconds, if there is one."""
        if self._clone is None:
            reply(StageError("machine", "the machine has ended"))
            return
        self._questions.ask(message, reply, limit=limit)

    def _run(self, number: int, session: wall.Session, started: wall.Started, message: dict[str, Any]) -> None:
        process = self._processes[number] = GuestProcess(self, number, session)

        def reply(answer: dict[str, Any] | BaseException) -> None:
            if number == _MAIN and self._patience is not None:
                self._patience.cancel()
            if isinstance(answer, BaseException):
                self._processes.pop(number, None)
                started(answer)
                return
            pid = answer.get("pid")
            process.pid = pid if isinstance(pid, int) and not isinstance(pid, bool) else 0
            process.warnings = _warnings(answer.get("warnings"))
            if number == _MAIN:
                process.warnings = (*self._plan.warnings, *process.warnings)
            if number == _MAIN and self._clone is not None:
                process.pid = self._clone.pid  # to the host, the program is QEMU
            started(process)

        self.ask(message, reply)

    def order(self, name: str, done: wall.Done, **arguments: Any) -> None:
        """A command for QEMU."""
        if self._clone is None or self._monitor is None:
            raise StageError("machine", "the machine has ended")
        self._monitor.order(name, done, **arguments)

    def _write(self, data: bytes | bytearray) -> int:
        if self._clone is None:
            return 0
        try:
            return self._clone.agent.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            return len(data)  # QEMU is gone; its end will be told

    # From the guest and from QEMU.

    def _agent_event(self, events: int) -> None:
        if self._clone is None:
            return
        if events & OUT:
            self._flush()
        if events & ~OUT:
            try:
                data = self._clone.agent.recv(_READ)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._loop.forget(self._clone.agent.fileno())
                return
            try:
                for frame in self._decoder.feed(data):
                    self._frame(frame)
            except wire.WireError as exc:
                self._break(f"the guest does not keep to the protocol: {exc}")

    def _flush(self) -> None:
        assert self._clone is not None
        while self._out and (done := self._write(self._out[:_READ])):
            del self._out[:done]
        if not self._out:
            self._loop.watch(self._clone.agent.fileno(), IN, self._agent_event)
        if not self.crowded:
            for process in tuple(self._processes.values()):
                process.drained()

    def _frame(self, frame: wire.Frame) -> None:
        if frame.kind == wire.MESSAGE:
            self._message(wire.message_of(frame))
            return
        process, which = self._processes.get(frame.stream >> 2), frame.stream & 3
        if process is None:
            return
        if frame.kind == wire.CREDIT:
            process.credited(wire.credit_of(frame))
        elif which not in (wire.STDOUT, wire.STDERR):
            raise wire.WireError(f"output on stream {frame.stream}")
        elif frame.kind == wire.DATA:
            process.fed(which, frame.payload)
        else:
            process.session.eof(which)

    def _message(self, message: dict[str, Any]) -> None:
        if message.get("event") == "exit":
            self._exited(message)
            return
        self._questions.answered(message)

    def _exited(self, message: dict[str, Any]) -> None:
        number, code, oom = message.get("process"), message.get("code"), message.get("oom")
        if isinstance(oom, int):
            self._oom = max(0, oom)
        process = self._processes.pop(number, None) if isinstance(number, int) else None
        if process is None:
            return
        code = code & 0xFF if isinstance(code, int) else 255
        if number == _MAIN:
            self._end_all(code)
        process.ended(code)

    def _told(self, event: qmp.Event) -> None:
        """QEMU tells something by itself."""
        if event.name == "RESUME":
            self.tell_time()  # the boot message was written before QEMU was up
        elif event.name == "SHUTDOWN":
            self._ending = str(event.data.get("reason", "shutdown"))[:100]
        elif event.name == "BALLOON_CHANGE" and self._limits is not None:
            self._limits.balloon_changed(event.data.get("actual"))

    def _words_event(self, _events: int) -> None:
        if self._clone is None:
            return
        try:
            data = os.read(self._clone.words, 65536)
        except BlockingIOError:
            return
        if not data:
            self._loop.forget(self._clone.words)
        self._words = (self._words + data)[-_LAST_WORDS:]

    def _guard_event(self, events: int) -> None:
        if self._clone is None:
            return
        if events & IN:
            self._clone.guard.answer()
        else:
            self._loop.forget(self._clone.guard.listener)

    # The end.

    def _break(self, why: str) -> None:
        """Something of ours, or the guest, is not as it should be: end the machine."""
        self.error = self.error or why
        self.kill(discard=True)

    def _qemu_ended(self, status: int) -> None:
        """QEMU is gone, whether we wanted it or not."""
        self._lost = True
        self._words_event(0)
        if self._clone is None:
            return
        words = (self._words + (self._monitor.nonsense if self._monitor is not None else b"")).decode(errors="replace").strip()
        if not self._ending and not self.error:
            how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"status {os.WEXITSTATUS(status)}"
            self.error = f"QEMU ended with {how}"
        if self.error and words:
            self.error += f": {words}"
        failure = StageError("machine", self.error or "the machine was ended")
        code = 0 if self._ending.startswith("guest-") and self._ending != "guest-panic" and not self.error else _KILLED
        self._questions.give_up(failure)
        main = self._processes.pop(_MAIN, None)
        if main is None and self._patience is None:
            self._loop.stop()  # it was waiting to be used
        self._end_all(_KILLED)
        if main is not None:
            main.ended(code)

    def _end_all(self, code: int) -> None:
        """Programs that were started by exec do not outlive the main one."""
        for number in [n for n in self._processes if n != _MAIN]:
            self._processes.pop(number).ended(_KILLED if code < 128 else code)


def _limits(plan: MachinePlan) -> Resources:
    """QEMU's own: the guest's memory is limited by its size, the programs in it by its kernel."""
    cpu = plan.spec.linux.resources.cpu
    rules = [DeviceRule(allow=False)] + [DeviceRule(allow=True, type="c", major=major, minor=minor) for major, minor in _DEVICES]
    return Resources(devices=rules, memory=Memory(limit=plan.memory + _OVERHEAD), cpu=cpu, pids=Pids(_THREADS))


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _warnings(told: object) -> tuple[str, ...]:
    """The guest's warnings, with their shape checked."""
    return tuple(str(each)[:200] for each in told[:_MOST_WARNINGS]) if isinstance(told, list) else ()


def _table(answer: dict[str, Any]) -> dict[str, Any] | BaseException:
    titles, rows = answer.get("titles"), answer.get("processes")
    if not isinstance(titles, list) or not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        return StageError("top", "the guest's answer is not a table")
    return {"titles": [str(title) for title in titles], "processes": [[str(cell) for cell in row] for row in rows]}
