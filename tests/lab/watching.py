"""The lab's two helpers as it sees them: the observer, which follows lease and Consul, and the client, which writes and samples."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.lab.client import Plan
from tests.lab.measures import Acknowledged, Holder, Samples, read_ledger, read_samples
from tests.lab.network import ROOT, Host, LabFailed, tail
from tests.lab.observer import Plan as ObserverPlan

ASK_TIMEOUT_S = 2.0
END_TIMEOUT_S = 5.0


def _start(host: Host, module: str, folder: Path, plan: object) -> subprocess.Popen[bytes]:
    folder.mkdir(exist_ok=True)
    (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    with (folder / "log").open("ab") as log:
        command = [sys.executable, "-m", module, str(folder / "plan.json")]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return host.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment)


def _end(process: subprocess.Popen[bytes]) -> int:
    """Let it end by the end of its input; its exit code."""
    with contextlib.suppress(OSError):
        assert process.stdin is not None
        process.stdin.close()
    try:
        return process.wait(END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait(END_TIMEOUT_S)
    finally:
        if process.stdout is not None:
            process.stdout.close()


@dataclass(frozen=True)
class Said:
    """Something that happened, for the timeline."""

    at_ns: int
    what: str


@dataclass
class Observer:
    """Follows the lease and Consul from a host that no cut reaches."""

    host: Host
    folder: Path
    servers: Mapping[str, str]
    holders: list[Holder] = field(default_factory=list)
    sync_set: tuple[str, ...] | None = None
    consul_leader: str | None = None
    consul_takes_writes: list[tuple[int, bool]] = field(default_factory=list)
    said: list[Said] = field(default_factory=list)

    def start(self) -> None:
        self._answers: dict[str, dict[str, Any]] = {}
        self._changed = threading.Condition()
        self._process = _start(self.host, "tests.lab.observer", self.folder, asdict(ObserverPlan(dict(self.servers))))
        threading.Thread(target=self._listen, daemon=True, name="hears the observer").start()

    def close(self) -> None:
        if hasattr(self, "_process"):
            _end(self._process)

    @property
    def holder(self) -> Holder | None:
        """The last holder seen; it may have given the lease up."""
        return self.holders[-1] if self.holders else None

    def ask(self, url: str, method: str = "GET", body: str = "", timeout_s: float = ASK_TIMEOUT_S) -> tuple[int, str]:
        """Status and text of an HTTP answer, asked from the observer's host; status 0: none."""
        token = uuid.uuid4().hex
        question = {"token": token, "url": url, "method": method, "body": body, "timeout_s": timeout_s}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question).encode() + b"\n")
        self._process.stdin.flush()
        with self._changed:
            if not self._changed.wait_for(lambda: token in self._answers, timeout_s + END_TIMEOUT_S):
                raise LabFailed(f"the observer does not answer:\n{tail(self.folder / 'log')}")
            answer = self._answers.pop(token)
        return int(answer["status"]), str(answer["text"])

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with contextlib.suppress(ValueError):  # closed while it was read: the end
            for line in self._process.stdout:
                self._hear(json.loads(line))

    def _hear(self, message: dict[str, Any]) -> None:
        with self._changed:
            if "token" in message:
                self._answers[message["token"]] = message
            elif "lease" in message:
                self._hear_lease(message["at_ns"], message["lease"])
            elif "consul_leader" in message:
                self.consul_leader = message["consul_leader"]
                self.said.append(Said(message["at_ns"], f"Consul is led by {self.consul_leader}"))
            else:
                takes = bool(message["consul_takes_writes"])
                self.consul_takes_writes.append((message["at_ns"], takes))
                self.said.append(Said(message["at_ns"], f"Consul takes {'writes' if takes else 'no writes'}"))
            self._changed.notify_all()

    def _hear_lease(self, at_ns: int, lease: dict[str, Any]) -> None:
        holder = Holder(at_ns, lease["epoch"], lease["holder"], lease["state"])
        previous = self.holder
        self.sync_set = None if lease["sync_set"] is None else tuple(lease["sync_set"])
        if previous is None or (previous.epoch, previous.name, previous.state) != (holder.epoch, holder.name, holder.state):
            self.holders.append(holder)
            self.said.append(Said(at_ns, f"lease: epoch {holder.epoch}, {holder.state} by {holder.name}: {lease['cause']}"))
        else:
            self.said.append(Said(at_ns, f"lease: sync set {', '.join(self.sync_set or ()) or 'empty'}"))


@dataclass
class Client:
    """The process that writes and samples."""

    host: Host
    plan: Plan

    def start(self) -> None:
        self._process = _start(self.host, "tests.lab.client", Path(self.plan.folder), asdict(self.plan))

    @property
    def folder(self) -> Path:
        return Path(self.plan.folder)

    def check(self) -> None:
        """LabFailed if it has ended by itself."""
        if self._process.poll() is not None:
            raise LabFailed(f"the client ended:\n{tail(self.folder / 'log')}")

    def stop(self) -> None:
        """End it; LabFailed if it did not end well."""
        if _end(self._process) != 0:
            raise LabFailed(f"the client ended badly:\n{tail(self.folder / 'log')}")

    def close(self) -> None:
        if hasattr(self, "_process"):
            _end(self._process)

    def ledger(self) -> list[Acknowledged]:
        return self._read("ledger", read_ledger, [])

    def samples(self) -> Samples:
        return self._read("samples", read_samples, Samples({}))

    def notes(self) -> list[Said]:
        """What the writer met, at each change."""
        return self._read("notes", _read_notes, [])

    def _read(self, name: str, parse: Callable[[str], Any], default: Any) -> Any:
        file = self.folder / name
        return parse(file.read_text(encoding="utf-8")) if file.exists() else default


def _read_notes(text: str) -> list[Said]:
    lines = (json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines())
    return [Said(line["at_ns"], f"writer: {line['writer']}") for line in lines]
