"""Hosts of the lab: namespaces on one machine, joined by a bridge, with links that go down and cuts between any of them.

    with Network() as network:
        h1, h2 = network.add("h1", 11), network.add("h2", 12)
        h1.run(["ping", "-c1", "-W1", h2.address])
        network.partition(["h1"], ["h2"])          # not a packet between them, established connections too, both directions
        network.heal()
        h1.crash(); h1.boot()                      # everything on it dies at once; it comes back with another boot id
        h1.keep("web", ["python3", "-m", "http.server"], log)     # restarted when it ends

A host is a network, mount, process, IPC and UTS namespace. All of them are anonymous: nothing is mounted or named in the root namespace,
the kernel removes them with their last process, and process 1 of each (init.py) ends when the lab does, even by SIGKILL. What a dead lab
can leave is a folder, whose name carries its pid: the next lab sweeps it. The bridge is in a namespace of its own, where hosts cannot
reach the cuts, and hosts have nft to themselves. Needs root. Addresses: 192.0.2.N and 2001:db8::N, N below 255. Any number of labs side
by side.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

ROOT = Path(__file__).resolve().parents[2]
FOLDER_PREFIX = "q-lab-"
ORDER_TIMEOUT_S = 20.0
RUN_TIMEOUT_S = 30.0


class LabFailed(Exception):
    """The lab itself did not work; the sentence says what. Never the fault of what is tested."""


def why_impossible() -> str | None:
    """Why there can be no hosts on this machine; None: they work."""
    if os.geteuid() != 0:
        return "hosts as namespaces need root"
    for program in ("ip", "nft", "unshare", "nsenter"):
        if shutil.which(program) is None:
            return f"hosts as namespaces need the program {program}"
    rules = "add table bridge q; add chain bridge q c { type filter hook forward priority 0; }"
    command = [str(shutil.which("unshare")), "--net", "nft", rules]
    tried = subprocess.run(command, check=False, capture_output=True, text=True, timeout=RUN_TIMEOUT_S)
    return f"hosts as namespaces need nft on a bridge: {tried.stderr.strip()[:200]}" if tried.returncode else None


def _checked(command: Sequence[str], text: str = "", timeout_s: float = RUN_TIMEOUT_S) -> str:
    """Run a program of the lab's own; LabFailed with its words."""
    done = subprocess.run(command, check=False, input=text, capture_output=True, text=True, timeout=timeout_s)
    if done.returncode != 0:
        raise LabFailed(f"{' '.join(command[-4:])}: {(done.stderr or done.stdout).strip()[:500]} [{text[:200]}]")
    return done.stdout


class Space:
    """A set of namespaces with its process 1. Ends with `end()` or with this process."""

    def __init__(self, name: str, boot_id_file: Path, heard: Callable[[dict[str, Any]], None] | None = None) -> None:
        self.name = name
        self._heard = heard
        self._answers: dict[str, dict[str, Any]] = {}
        self._changed = threading.Condition()
        self._ended = False
        program = [sys.executable, "-I", "-S", str(Path(__file__).with_name("init.py")), name, str(boot_id_file)]
        self._process = subprocess.Popen(
            program,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C at the terminal is the lab's to handle, in its order
            cwd="/",
        )
        threading.Thread(target=self._listen, name=f"hears {name}", daemon=True).start()
        try:
            self.wait_for(lambda: {"ready", "inside"} <= self._answers.keys(), "its first process")
        except BaseException:
            self._reap()
            raise
        self.pid: int = self._answers["inside"]["pid"]

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as said:
            for line in said:
                self._hear(json.loads(line))
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _hear(self, message: dict[str, Any]) -> None:
        with self._changed:
            self._answers[str(message.get("token") or next(iter(message)))] = message
            self._changed.notify_all()
        if self._heard is not None and ("started" in message or "ended" in message):
            self._heard(message)

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: self._ended or condition(), ORDER_TIMEOUT_S) or not condition():
                raise LabFailed(f"{self.name}: {what} did not answer")

    def order(self, **order: object) -> dict[str, Any]:
        """Tell process 1; its answer."""
        token = uuid.uuid4().hex
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({**order, "token": token}).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise LabFailed(f"{self.name} is gone: {error.strerror}") from error
        self.wait_for(lambda: token in self._answers, f"{order.get('do')} {order.get('name', '')}")
        return self._answers.pop(token)

    def enter(self, command: Sequence[str]) -> list[str]:
        """The command that runs `command` inside all of these namespaces."""
        return ["nsenter", "-t", str(self.pid), "-n", "-m", "-p", "-i", "-u", "--", *command]

    def ip(self, *lines: str) -> None:
        """Run lines of `ip -batch` in its network."""
        _checked(["nsenter", "-t", str(self.pid), "-n", "ip", "-batch", "-"], "\n".join(lines) + "\n")

    def nft(self, rules: str) -> None:
        """Load nft rules, all of them or none, in its network."""
        _checked(["nsenter", "-t", str(self.pid), "-n", "nft", "-f", "-"], rules)

    def end(self) -> None:
        """SIGKILL to every process in it at once; returns when none is left."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self._reap()

    def _reap(self) -> None:
        """Wait for its end, which the end of its input brings in any case."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(ORDER_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise LabFailed(f"{self.name}: its processes survive SIGKILL") from None


class Host:
    """One host. Up from the beginning; `crash` and `boot` as often as wanted."""

    def __init__(self, network: Network, name: str, number: int) -> None:
        self.name = name
        self.number = number
        self.address = f"192.0.2.{number}"
        self.address6 = f"2001:db8::{number}"
        self.mac = f"02:00:00:00:00:{number:02x}"
        self.boot_id = ""
        self._network = network
        self._space: Space | None = None

    @property
    def is_up(self) -> bool:
        return self._space is not None

    @property
    def space(self) -> Space:
        """Its namespaces; LabFailed while it is down."""
        if self._space is None:
            raise LabFailed(f"{self.name} is down")
        return self._space

    @property
    def netns(self) -> str:
        """A path of its network namespace, good while this host is up."""
        return f"/proc/{self.space.pid}/ns/net"

    def boot(self) -> None:
        """New namespaces, a new boot id, the link up."""
        if self._space is not None:
            raise LabFailed(f"{self.name} is up already")
        self.boot_id = str(uuid.uuid4())
        boot_id_file = self._network.folder / f"{self.name}.boot_id"
        boot_id_file.unlink(missing_ok=True)
        boot_id_file.write_text(self.boot_id + "\n", encoding="ascii")
        self._space = Space(self.name, boot_id_file, lambda message: self._network.heard(self.name, message))
        self._network.plug(self)

    def crash(self) -> None:
        """As if its power went: the link first, so that not even a FIN leaves, then SIGKILL to everything on it."""
        space = self.space
        self._network.link(self.name, up=False)
        self._space = None
        space.end()
        self._network.unplug(self)

    def enter(self, command: Sequence[str]) -> list[str]:
        """The command that runs `command` on this host."""
        return self.space.enter(command)

    def run(self, command: Sequence[str], timeout_s: float = RUN_TIMEOUT_S, text: str = "") -> subprocess.CompletedProcess[str]:
        """Run a program on this host to its end; its exit code is the caller's to judge."""
        return subprocess.run(self.enter(command), check=False, input=text, capture_output=True, text=True, timeout=timeout_s)

    def popen(self, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Begin a program on this host. Its pid is nsenter's; it dies with the host."""
        return subprocess.Popen(self.enter(command), **options)

    def keep(
        self, unit: str, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None, *, restart: bool = True
    ) -> None:
        """Start a unit and keep it running: it is started again 100 ms after its end. Replaces the unit of this name."""
        more = {"environment": dict(environment or {}), "restart": restart}
        self.space.order(do="keep", name=unit, command=list(command), log=str(log), **more)

    def hold(self, unit: str, number: signal.Signals = signal.SIGKILL) -> None:
        """End a unit for good; nothing if there is none."""
        self.space.order(do="hold", name=unit, signal=int(number))

    def signal(self, unit: str, number: signal.Signals) -> None:
        """Send a signal to the unit's first process, if it runs."""
        self.space.order(do="signal", name=unit, signal=int(number))

    def processes(self) -> tuple[int, ...]:
        """Pids, as this process sees them, of everything on the host."""
        namespace = os.readlink(f"/proc/{self.space.pid}/ns/pid")  # noqa: PTH115 (not a path: pid:[1])
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if os.readlink(entry / "ns/pid") == namespace:  # noqa: PTH115 (the same)
                        found.append(int(entry.name))
        return tuple(sorted(found))


class Network:
    """The bridge and its hosts. Close it, or use it as a context."""

    def __init__(self, on_event: Callable[[str, dict[str, Any]], None] | None = None) -> None:
        sweep()
        self.folder = Path(tempfile.mkdtemp(prefix=f"{FOLDER_PREFIX}{os.getpid()}-", dir="/tmp"))
        self.folder.chmod(0o755)
        self.hosts: dict[str, Host] = {}
        self._on_event = on_event
        self._cuts: set[tuple[str, str]] = set()
        boot_id_file = self.folder / "bridge.boot_id"
        boot_id_file.write_text(f"{uuid.uuid4()}\n", encoding="ascii")
        try:
            self._bridge = Space("bridge", boot_id_file)
            self._bridge.ip("link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0", "link set br0 up")
            self._load_cuts()
        except BaseException:
            self.close()
            raise

    def add(self, name: str, number: int) -> Host:
        """A host that is up, on 192.0.2.`number`."""
        host = Host(self, name, number)
        self.hosts[name] = host
        host.boot()
        return host

    def heard(self, host: str, message: dict[str, Any]) -> None:
        """What a host's process 1 says, from a thread of its own."""
        if self._on_event is not None:
            self._on_event(host, message)

    def plug(self, host: Host) -> None:
        """A fresh cable from the bridge to the host's eth0. Addresses without duplicate detection: they are there at once."""
        pid = host.space.pid
        self._bridge.ip(
            f"link add {host.name} type veth peer name eth0 address {host.mac} netns {pid}", f"link set {host.name} master br0 up"
        )
        host.space.ip(
            "link set lo up",
            "link set eth0 up",
            f"addr add {host.address}/24 brd + dev eth0",
            f"addr add {host.address6}/64 dev eth0 nodad",
        )

    def unplug(self, host: Host) -> None:
        """Take the cable away for good. The kernel does so, too, when it removes the host's namespace, a moment later."""
        command = ["nsenter", "-t", str(self._bridge.pid), "-n", "ip", "link", "del", host.name]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=RUN_TIMEOUT_S)
        if done.returncode != 0 and "Cannot find device" not in done.stderr:
            raise LabFailed(f"{host.name}: its cable cannot be taken away: {done.stderr.strip()[:200]}")

    def link(self, name: str, *, up: bool) -> None:
        """The host's cable in or out; its addresses and processes stay."""
        self._bridge.ip(f"link set {name} {'up' if up else 'down'}")

    def partition(self, a: Iterable[str], b: Iterable[str]) -> None:
        """From now on not a packet passes between a host of `a` and one of `b`. Adds to earlier cuts."""
        a, b = list(a), list(b)
        unknown = {*a, *b} - self.hosts.keys()
        if unknown:
            raise LabFailed(f"no such host: {', '.join(sorted(unknown))}")
        self._cuts |= {(x, y) for x in a for y in b if x != y} | {(y, x) for x in a for y in b if x != y}
        self._load_cuts()

    def heal(self) -> None:
        """Undo all cuts and put all cables back; hosts that are down stay down."""
        self._cuts.clear()
        self._load_cuts()
        for host in self.hosts.values():
            if host.is_up:
                self.link(host.name, up=True)

    def _load_cuts(self) -> None:
        drops = "\n".join(f'  iifname "{source}" oifname "{target}" drop' for source, target in sorted(self._cuts))
        chain = f"chain forward {{\n  type filter hook forward priority 0; policy accept;\n{drops}\n}}"
        self._bridge.nft(f"table bridge cuts\ndelete table bridge cuts\ntable bridge cuts {{\n{chain}\n}}\n")

    def close(self) -> None:
        """End everything and remove the folder. May be called again."""
        for host in self.hosts.values():
            if host.is_up:
                space, host._space = host.space, None
                space.end()
        if hasattr(self, "_bridge"):
            self._bridge.end()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def sweep() -> None:
    """Remove the folders of labs that died."""
    for folder in Path("/tmp").glob(f"{FOLDER_PREFIX}*-*"):
        pid = folder.name.removeprefix(FOLDER_PREFIX).split("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(folder, ignore_errors=True)


def tail(file: IO[str] | Path, lines: int = 40) -> str:
    """The end of a log, for a message."""
    text = file.read_text(encoding="utf-8", errors="replace") if isinstance(file, Path) else file.read()
    return "\n".join(text.splitlines()[-lines:])
