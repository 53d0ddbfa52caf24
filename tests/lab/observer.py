"""The lab's eye: on a host of its own that no cut reaches, it follows Consul and asks what the lab wants to know.

    python -m tests.lab.observer PLAN.json        # until its standard input ends

- The lease: read from every Consul server in turn, stale reads allowed, so that a server without a leader still answers; a reading below
  what was seen is dropped. Each change of (epoch, state, holder, sync set) is a line.
- Consul's leader: who a server says it is, a line at each change; and whether Consul takes writes: one small write each 50 ms, through any
  server that takes it, a line when that begins and ends. So Consul's own election is measured in the run that it matters to.
- Questions of the lab: {"token", "url", "method", "body", "timeout_s"} a line in, {"token", "status", "text"} a line out.

Every line carries CLOCK_BOOTTIME in nanoseconds. Only the standard library. It never writes anything but the key of its own probe.
"""

from __future__ import annotations

import base64
import http.client
import json
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

LOOK_S = 0.1
PROBE_S = 0.05
TIMEOUT_S = 0.3
LEASE_PATH = "/v1/kv/quorate/main/lease?stale"
LEADER_PATH = "/v1/status/leader"
PROBE_PATH = "/v1/kv/lab/probe"
SERVER_PORT = ":8300"

_voice = threading.Lock()
Errors = (OSError, http.client.HTTPException, ValueError)


@dataclass(frozen=True)
class Plan:
    """`servers`: addresses of Consul's servers by host name; the HTTP port is 8500."""

    servers: dict[str, str]


def say(**message: object) -> None:
    """One line, whole."""
    line = json.dumps({"at_ns": time.clock_gettime_ns(time.CLOCK_BOOTTIME), **message})
    with _voice:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


class Door:
    """One kept-alive connection to one server."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._open: http.client.HTTPConnection | None = None

    def ask(self, path: str, method: str = "GET", body: bytes | None = None) -> tuple[int, bytes]:
        """Status and text. Raises one of Errors, after which the next question uses a new connection."""
        if self._open is None:
            self._open = http.client.HTTPConnection(self._address, 8500, timeout=TIMEOUT_S)
        try:
            self._open.request(method, path, body)
            answer = self._open.getresponse()
            return answer.status, answer.read()
        except Errors:
            self._open.close()
            self._open = None
            raise


class LeaseWatch:
    """Follows the lease."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._doors = [Door(address) for address in addresses]
        self._newest = (-1, -1)
        self._said: tuple[object, ...] = ()

    def run(self) -> None:
        while True:
            for door in self._doors:
                with suppress(*Errors, KeyError):
                    self._look(door)
                time.sleep(LOOK_S)

    def _look(self, door: Door) -> None:
        status, text = door.ask(LEASE_PATH)
        if status != http.client.OK:
            return
        entry = json.loads(text)[0]
        record = json.loads(base64.b64decode(entry["Value"]))
        newest = (record["epoch"], entry["ModifyIndex"])
        if newest <= self._newest:
            return
        self._newest = newest
        seen = (record["epoch"], record["state"], record["holder"], record["sync_set"])
        if seen != self._said:
            self._said = seen
            say(lease={"epoch": seen[0], "state": seen[1], "holder": seen[2], "sync_set": seen[3], "cause": record["cause"]})


class ConsulWatch:
    """Follows who leads Consul and whether it takes writes."""

    def __init__(self, servers: dict[str, str]) -> None:
        self._names = {address: name for name, address in servers.items()}
        self._doors = {address: Door(address) for address in servers.values()}
        self._through = next(iter(self._doors))
        self._leader: str | None = None
        self._takes = False
        self._number = 0

    def run(self) -> None:
        while True:
            began_s = time.monotonic()
            takes = self._probe()
            if takes != self._takes:
                self._takes = takes
                say(consul_takes_writes=takes)
            if self._number % 4 == 0 or not takes:
                self._ask_leader()
            time.sleep(max(0.0, PROBE_S - (time.monotonic() - began_s)))

    def _probe(self) -> bool:
        """Through the server that worked last; the next one if it does not."""
        self._number += 1
        with suppress(*Errors):
            status, _ = self._doors[self._through].ask(PROBE_PATH, "PUT", str(self._number).encode())
            if status == http.client.OK:
                return True
        addresses = list(self._doors)
        self._through = addresses[(addresses.index(self._through) + 1) % len(addresses)]
        return False

    def _ask_leader(self) -> None:
        with suppress(*Errors):
            _, text = self._doors[self._through].ask(LEADER_PATH)
            leader = self._names.get(json.loads(text).removesuffix(SERVER_PORT))
            if leader is not None and leader != self._leader:
                self._leader = leader
                say(consul_leader=leader)


def answer(question: dict[str, object]) -> None:
    """Ask what the lab wants to know, and pass the answer on."""
    url = urlsplit(str(question["url"]))
    connection = http.client.HTTPConnection(str(url.hostname), url.port, timeout=float(str(question["timeout_s"])))
    try:
        body = str(question.get("body") or "").encode() or None
        connection.request(str(question["method"]), url.path + (f"?{url.query}" if url.query else ""), body)
        got = connection.getresponse()
        say(token=question["token"], status=got.status, text=got.read().decode(errors="replace"))
    except Errors as error:
        say(token=question["token"], status=0, text=str(error))
    finally:
        connection.close()


def main() -> int:
    plan = Plan(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    for target in (LeaseWatch(list(plan.servers.values())).run, ConsulWatch(plan.servers).run):
        threading.Thread(target=target, daemon=True).start()
    pool = ThreadPoolExecutor(8)
    for line in sys.stdin:
        pool.submit(answer, json.loads(line))
    pool.shutdown(wait=False, cancel_futures=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
