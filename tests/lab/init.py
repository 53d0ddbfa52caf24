"""The first process of a host of the lab: keeps units running, reaps orphans, ends with the lab.

Runs as process 1 of a process namespace, so that its death, by whatever cause, is the death of everything on the host: that is what
`host_down` is, and what keeps a lab that was killed from leaving anything. Its standard input is the lab's hand: a JSON object a line;
the end of the input is the end of the host. Its standard output says what happened. Only the standard library: one runs per host.

Orders: {"do": "keep", "name", "command", "log", "environment", "restart"} starts a unit and keeps it running: 100 ms after its end it is
started again, what a systemd unit would do (or not). {"do": "hold", "name", "signal"} ends it for good; {"do": "signal", "name", "signal"}
signals its first process. Each order carries a `token` that its answer repeats.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import sys
import time
from dataclasses import dataclass, field

RESTART_PAUSE_S = 0.1
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 1 << 18
NEW_NAMESPACES = 0x40000000 | 0x20000000 | 0x08000000 | 0x04000000 | 0x00020000
"""Network, processes, IPC, host name, mounts."""
LIBC = ctypes.CDLL(None, use_errno=True)
SIGNALS_TAKEN = (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass
class Unit:
    """One program to keep running. `due_s`: when it is to be started again."""

    name: str
    command: list[str]
    log: str
    environment: dict[str, str] = field(default_factory=dict)
    wanted: bool = True
    pid: int | None = None
    due_s: float | None = None


class Init:
    """The loop."""

    def __init__(self) -> None:
        self.units: dict[str, Unit] = {}
        self._wake, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        for number in SIGNALS_TAKEN:
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(wake)
        self._input = b""

    def run(self) -> None:
        while True:
            now_s = time.monotonic()
            due = [unit.due_s for unit in self.units.values() if unit.due_s is not None]
            timeout_s = max(0.0, min(due) - now_s) if due else None
            readable, _, _ = select.select([0, self._wake], [], [], timeout_s)
            if self._wake in readable:
                os.read(self._wake, 4096)
            self._reap()
            if 0 in readable and not self._read_orders():
                return
            self._restart_due()

    def _read_orders(self) -> bool:
        data = os.read(0, 65536)
        self._input += data
        *lines, self._input = self._input.split(b"\n")
        for line in lines:
            self._obey(json.loads(line))
        return bool(data)

    def _obey(self, order: dict[str, object]) -> None:
        name = str(order.get("name", ""))
        if order["do"] == "keep":
            self._hold(name, signal.SIGKILL)
            self.units[name] = Unit(name, order["command"], order["log"], order["environment"], order["restart"])  # type: ignore[arg-type]
            self._start(self.units[name])
        elif order["do"] == "hold":
            self._hold(name, int(order["signal"]))  # type: ignore[call-overload]
        elif order["do"] == "signal":
            self._signal(name, int(order["signal"]))  # type: ignore[call-overload]
        unit = self.units.get(name)
        say({"did": order["do"], "name": name, "pid": unit.pid if unit else None, "token": order.get("token")})

    def _start(self, unit: Unit) -> None:
        unit.due_s = None
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, unit.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        environment = {**os.environ, **unit.environment}
        unit.pid = os.posix_spawnp(unit.command[0], unit.command, environment, file_actions=actions, setsid=True, setsigdef=SIGNALS_TAKEN)
        say({"started": unit.name, "pid": unit.pid, "at_ns": time.clock_gettime_ns(time.CLOCK_BOOTTIME)})

    def _hold(self, name: str, number: int) -> None:
        unit = self.units.get(name)
        if unit is None:
            return
        unit.wanted, unit.due_s = False, None
        self._signal(name, signal.SIGCONT)
        self._signal(name, number)

    def _signal(self, name: str, number: int) -> None:
        unit = self.units.get(name)
        if unit is not None and unit.pid is not None:
            os.kill(unit.pid, number)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for unit in self.units.values():
                if unit.pid == pid:
                    self._ended(unit, status)

    def _ended(self, unit: Unit, status: int) -> None:
        say({"ended": unit.name, "status": os.waitstatus_to_exitcode(status), "at_ns": time.clock_gettime_ns(time.CLOCK_BOOTTIME)})
        unit.pid = None
        unit.due_s = time.monotonic() + RESTART_PAUSE_S if unit.wanted else None

    def _restart_due(self) -> None:
        for unit in self.units.values():
            if unit.due_s is not None and unit.due_s <= time.monotonic():
                self._start(unit)


def say(message: dict[str, object]) -> None:
    """One line to the lab."""
    os.write(1, json.dumps(message).encode() + b"\n")


def enter_new_namespaces() -> int:
    """Namespaces of its own for everything; in the child that is their process 1: 0, else the child's pid."""
    if LIBC.unshare(NEW_NAMESPACES) != 0:
        raise OSError(ctypes.get_errno(), "new namespaces")
    pid = os.fork()
    if pid == 0:
        _mount(b"none", b"/", None, MS_REC | MS_PRIVATE)
        _mount(b"proc", b"/proc", b"proc", 0)
    return pid


def _mount(source: bytes, target: bytes, kind: bytes | None, flags: int) -> None:
    if LIBC.mount(source, target, kind, flags, None) != 0:
        raise OSError(ctypes.get_errno(), f"mounting {target.decode()}")


def main() -> int:
    """Process 1 runs until its input ends. Its parent, still outside, says its pid there and waits for its end."""
    _, host_name, boot_id_file = sys.argv
    if pid := enter_new_namespaces():
        say({"inside": host_name, "pid": pid})
        os.waitpid(pid, 0)
        return 0
    with contextlib.suppress(OSError), open("/proc/sys/kernel/ns_last_pid", "w", encoding="ascii") as last:  # noqa: PTH123 (no pathlib here)
        last.write(str(1000 + int.from_bytes(os.urandom(2), "big") // 3))  # a reboot gives other pids: what a lock file names is nobody's
    LIBC.sethostname(host_name.encode(), len(host_name))
    _mount(boot_id_file.encode(), b"/proc/sys/kernel/random/boot_id", None, MS_BIND)
    say({"ready": host_name})
    Init().run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
