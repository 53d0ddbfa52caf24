"""The process itself: how it is called, what it imports, what ends it and what does not."""

from __future__ import annotations

import functools
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from agent.watchdog import protocol
from agent.watchdog.deadline import NANOSECONDS
from agent.watchdog.host import moment
from agent.watchdog.process import members_of
from agent.watchdog.protocol import Adopt, Answer, Greeting, GroupReport, HandOver, Hello, Register, Request, decode_answer, encode
from tests.polling import eventually

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[4]
PROGRAM = ROOT / "agent" / "__main__.py"
UID = os.getuid()
LARGEST_RESIDENT_KB = 15 * 1024


class Running:
    """A watchdog of this test's own."""

    def __init__(self, state: Path, stack: ExitStack, **options: object) -> None:
        self.state = state
        self.log = state.parent / f"{state.name}.log"
        with self.log.open("ab") as log:
            settings = {"stdout": log, "stderr": log, "stdin": subprocess.DEVNULL, **options}
            self.process = subprocess.Popen([sys.executable, "-I", "-S", PROGRAM, "watchdog", "--state-dir", state], **settings)  # type: ignore[call-overload]
        stack.callback(self.end)
        self.client = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        self.client.settimeout(5)
        eventually(self._connected, what="it answers")

    def _connected(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return self.client.connect_ex(str(self.state / protocol.SOCKET)) == 0

    def ask(self, request: Request) -> Answer:
        self.client.send(encode(request))
        return decode_answer(self.client.recv(protocol.LARGEST_ANSWER))

    def arm(self, ahead_s: float) -> Answer:
        now = moment()
        ahead = int(ahead_s * NANOSECONDS)
        return self.ask(HandOver("g", 1, now.boot_ns + ahead, now.raw_ns + ahead, "n"))

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def refused_again(running: Running, before: int) -> bool:
    return running.log.read_text().count("refusing to end") > before


Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with ExitStack() as stack:

        def run(name: str = "state", **options: object) -> Running:
            state = tmp_path / name
            state.mkdir(exist_ok=True)
            return Running(state, stack, **options)

        yield run


@pytest.fixture
def member(tmp_path: Path) -> Iterator[Path]:
    """A data directory that a process works in, of a service that cannot be proven not writable."""
    data = tmp_path / "data"
    data.mkdir()
    with subprocess.Popen(["/bin/sleep", "60"], cwd=data) as child:
        yield data
        child.kill()


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agent", "watchdog", *arguments], capture_output=True, text=True, timeout=30, cwd=ROOT, check=False
    )


@pytest.mark.parametrize(
    "arguments", [[], ["--state-dir"], ["--state-dir="], ["--state-dir", ""], ["--state-dir", "a", "b"], ["--help", "x"], ["x"]]
)
def test_a_wrong_call_is_one_line(arguments: list[str]) -> None:
    done = call(*arguments)
    assert done.returncode == 64
    assert done.stderr.count("\n") == 1
    assert "--help" in done.stderr


def test_help_shows_an_example() -> None:
    done = call("--help")
    assert done.returncode == 0
    assert "example: quorate watchdog --state-dir /" in done.stdout


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    done = call(f"--state-dir={tmp_path / 'no'}")
    assert done.returncode == 1
    assert done.stderr == f"quorate watchdog: the state folder {tmp_path / 'no'} cannot be opened: No such file or directory\n"


def test_the_second_in_a_folder_names_the_first(start: Start) -> None:
    first = start()
    done = call("--state-dir", str(first.state))
    assert done.returncode == 1
    assert done.stderr == f"quorate watchdog: another watchdog (pid {first.process.pid}) guards {first.state}\n"


def test_it_says_who_it_is_and_is_small(start: Start) -> None:
    running = start()
    greeting = running.ask(Hello())
    assert isinstance(greeting, Greeting)
    assert greeting.pid == running.process.pid
    assert greeting.protocol == protocol.VERSION
    assert all(greeting[5:])
    status = Path(f"/proc/{running.process.pid}/status").read_text()
    resident_kb = int(status.split("VmRSS:")[1].split()[0])
    assert resident_kb <= LARGEST_RESIDENT_KB


def test_it_imports_nothing_but_itself_and_the_standard_library() -> None:
    code = f"""
import sys; sys.path.append({str(ROOT)!r}); sys.argv[1:] = ["watchdog", "--help"]
import agent.__main__; agent.__main__.main()
import json; print(json.dumps(sorted(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    modules = json.loads(done.stdout.splitlines()[-1])
    ours = {name for name in modules if name.partition(".")[0] in {"agent", "checks", "actions"}}
    assert {name for name in ours if not name.startswith("agent.watchdog")} == {"agent", "agent.__main__"}
    assert not {name.partition(".")[0] for name in modules} - {"agent", "__main__"} - set(sys.stdlib_module_names)
    heavy = {"asyncio", "argparse", "pathlib", "dataclasses", "logging", "subprocess", "threading", "inspect", "urllib"}
    assert not heavy & set(modules)


def test_signals_that_end_others_do_not_end_it(start: Start) -> None:
    running = start()
    for name in ("SIGHUP", "SIGPIPE", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGTSTP", "SIGTTIN", "SIGTTOU"):
        running.process.send_signal(getattr(signal, name))
        assert isinstance(running.ask(Hello()), Greeting)


def test_the_loss_of_its_terminal_does_not_end_it(start: Start) -> None:
    controller, terminal = os.openpty()
    running = start(stdout=terminal, stderr=terminal, start_new_session=True)
    os.close(terminal)
    os.close(controller)
    assert isinstance(running.ask(Register("g", "/nowhere/data", UID, 0.5)), protocol.Done)
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(10) == 0


def test_started_without_standard_streams_it_writes_into_no_other_file(start: Start) -> None:
    running = start(preexec_fn=lambda: os.closerange(0, 3))
    assert (running.state / protocol.LOCK).read_text() == f"{running.process.pid}\n"
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(10) == 0
    assert (running.state / protocol.LOCK).read_text() == f"{running.process.pid}\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_it_ends_when_asked_and_nothing_is_armed(start: Start, number: signal.Signals) -> None:
    running = start()
    running.process.send_signal(number)
    assert running.process.wait(10) == 0


def test_it_refuses_to_end_while_it_is_needed_and_then_does_its_duty(start: Start, member: Path) -> None:
    running = start()
    with running.client:
        running.ask(Register("g", str(member), UID, 0.5))
        child = members_of(str(member), UID)[0]
        os.kill(child, signal.SIGKILL)
        eventually(lambda: not members_of(str(member), UID), what="it is dead")
        assert isinstance(running.arm(1.0), protocol.Acknowledged)
    with subprocess.Popen(["/bin/sleep", "60"], cwd=member) as service:
        for _ in range(2):
            refusals = running.log.read_text().count("refusing to end")
            running.process.send_signal(signal.SIGTERM)
            eventually(functools.partial(refused_again, running, refusals), what="it says so")
        assert service.poll() is None
        assert service.wait(10) == -signal.SIGKILL
    assert running.process.poll() is None
    eventually(lambda: "the deadline passed" in running.log.read_text(), what="it says what it did")
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(10) == 0


def test_a_restarted_one_remembers_its_groups_and_no_deadline(start: Start, tmp_path: Path) -> None:
    first = start()
    first.ask(Register("g", str(tmp_path / "data"), UID, 0.5))
    assert isinstance(first.arm(5), protocol.Acknowledged)
    first.process.kill()
    first.process.wait()
    report = start().ask(Adopt("g"))
    assert isinstance(report, GroupReport)
    assert (report.phase, report.epoch, report.highest_epoch) == ("held", 0, 0)


def test_a_broken_list_of_groups_does_not_keep_it_from_starting(start: Start, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / protocol.GROUPS).write_text("{")
    running = start()
    assert isinstance(running.ask(Hello()), Greeting)
    assert "nothing is held until an agent registers" in running.log.read_text()


def test_it_ends_when_its_folder_is_gone_and_nothing_is_armed(start: Start, tmp_path: Path) -> None:
    running = start()
    running.ask(Register("g", str(tmp_path / "data"), UID, 0.5))
    assert isinstance(running.arm(1.5), protocol.Acknowledged)
    (tmp_path / "state").rename(tmp_path / "old")
    with pytest.raises(subprocess.TimeoutExpired):
        running.process.wait(1.2)
    assert running.process.wait(10) == 0
    assert "removed or replaced" in running.log.read_text()


def test_a_fault_of_a_turn_does_not_end_it(tmp_path: Path) -> None:
    code = f"""
import sys; sys.path.append({str(ROOT)!r})
from agent.watchdog import guard, watchdog
really, left = guard.Guard.turn, [3]
def turn(self):
    if left[0]:
        left[0] -= 1
        raise RuntimeError("a fault of ours")
    really(self)
guard.Guard.turn = turn
sys.exit(watchdog.main(["--state-dir", {str(tmp_path)!r}]))
"""
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", code], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = [process.stderr.readline() for _ in range(4)]
        assert ["a fault of ours" in line for line in lines] == [False, True, True, True]
        process.terminate()
        assert process.wait(10) == 0
