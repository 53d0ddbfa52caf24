"""Real Consul servers for tests: one server, and a cluster of them, on loopback addresses or inside network namespaces.

A server is a `ServerPlan` (what) and a `ConsulServer` (the process). `prefix` is the command that it is started by and asked through, such
as `("ip", "netns", "exec", "h1")`; all its ports are on `address`, so two servers may share their ports. It keeps its raft log in `folder`:
started again there, it is the same server. Each process is a child of the test, ended by `stop` (SIGTERM) or `kill`.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

POLL_S = 0.02
ASK_TIMEOUT_S = 2.0
STOP_TIMEOUT_S = 10.0
LEADER_TIMEOUT_S = 20.0

_ASK = """
import sys, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
body = sys.argv[4].encode() or None
request = urllib.request.Request(sys.argv[1], headers={"X-Consul-Token": sys.argv[2]}, method=sys.argv[3], data=body)
sys.stdout.buffer.write(opener.open(request, timeout=float(sys.argv[5])).read())
"""
"""Asks one address from inside a namespace."""


class ConsulNotReady(Exception):
    """It did not get ready in time; the text holds the end of its log."""


@dataclass(frozen=True, slots=True)
class Acl:
    """Access control on: everything is denied without a token; this one may do everything."""

    management_token: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass(frozen=True, slots=True)
class Tls:
    """HTTPS on port `https`, beside plain HTTP on the same address."""

    ca_file: Path
    cert: Path
    key: Path
    port: int = 8501
    ask_for_client_cert: bool = False


@dataclass(frozen=True, slots=True)
class ServerPlan:
    """One server. `join`: addresses of the others (its own does no harm). `leave_on_stop`: SIGTERM leaves the cluster for good."""

    name: str
    folder: Path
    binary: Path
    address: str = "127.0.0.1"
    join: tuple[str, ...] = ()
    servers: int = 1
    raft_multiplier: int = 1
    http_port: int = 8500
    acl: Acl | None = None
    tls: Tls | None = None
    prefix: tuple[str, ...] = ()
    leave_on_stop: bool = False
    quick_gossip: bool = True
    cleans_up: bool = True
    """Whether Consul removes a dead server by itself after some 10 s, and with it all sessions of its host: Consul's default."""

    @property
    def url(self) -> str:
        return f"http://{_in_url(self.address)}:{self.http_port}"

    def configuration(self) -> dict[str, object]:
        """What Consul reads. Small and fast: no DNS, no gRPC, no WAN, no mesh; quick gossip notices a death within a second."""
        base: dict[str, object] = {
            "node_name": self.name,
            "data_dir": str(self.folder / "data"),
            "server": True,
            "bootstrap_expect": self.servers,
            "bind_addr": self.address,
            "advertise_addr": self.address,
            "client_addr": self.address,
            "retry_join": [_in_url(address) for address in self.join],
            "retry_interval": "200ms",
            "ports": {
                "http": self.http_port,
                "https": -1 if self.tls is None else self.tls.port,
                "dns": -1,
                "grpc": -1,
                "grpc_tls": -1,
                "serf_wan": -1,
            },
            "performance": {"raft_multiplier": self.raft_multiplier, "leave_drain_time": "0s"},
            "leave_on_terminate": self.leave_on_stop,
            "skip_leave_on_interrupt": True,
            "disable_update_check": True,
            "disable_keyring_file": True,
            "connect": {"enabled": False},
            "peering": {"enabled": False},
            "log_level": "info",
        }
        if not self.cleans_up:
            base["autopilot"] = {"cleanup_dead_servers": False}
        if self.quick_gossip:
            base["gossip_lan"] = {"gossip_interval": "50ms", "probe_interval": "200ms", "probe_timeout": "100ms", "suspicion_mult": 2}
        if self.acl is not None:
            base["acl"] = {
                "enabled": True,
                "default_policy": "deny",
                "tokens": {"initial_management": self.acl.management_token, "agent": self.acl.management_token},
            }
        if self.tls is not None:
            https = {
                "ca_file": str(self.tls.ca_file),
                "cert_file": str(self.tls.cert),
                "key_file": str(self.tls.key),
                "verify_incoming": self.tls.ask_for_client_cert,
            }
            base["tls"] = {"https": https}
        return base


class ConsulServer:
    """The process of one plan. Started anew, it goes on with what its folder holds."""

    def __init__(self, plan: ServerPlan) -> None:
        self.plan = plan
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of the process that was started: with a `prefix` that replaces itself (ip netns exec) it is Consul's own."""
        assert self._process is not None, "never started"
        return self._process.pid

    @property
    def log(self) -> Path:
        return self.plan.folder / "consul.log"

    def start(self) -> None:
        """Start the process; `ConsulCluster.wait_leader` waits for it."""
        assert not self.running, f"{self.plan.name} runs"
        self.plan.folder.mkdir(parents=True, exist_ok=True)
        file = self.plan.folder / "consul.json"
        file.write_text(json.dumps(self.plan.configuration()), encoding="utf-8")
        command = (*self.plan.prefix, str(self.plan.binary), "agent", f"-config-file={file}")
        environment = {"PATH": os.environ.get("PATH", ""), "HOME": str(self.plan.folder), "GOMAXPROCS": "2"}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=environment
            )

    def stop(self) -> None:
        """End it cleanly (SIGTERM); by force when that takes too long."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait(STOP_TIMEOUT_S)

    def freeze(self) -> None:
        """It accepts connections (its kernel does) and never answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        os.kill(self.pid, signal.SIGCONT)

    def ask(self, path: str, method: str = "GET", body: str = "", timeout_s: float = ASK_TIMEOUT_S) -> bytes:
        """Consul's answer to one HTTP question. Raises OSError when there is none, or none that is well."""
        token = "" if self.plan.acl is None else self.plan.acl.management_token
        if self.plan.prefix:
            arguments = (f"{self.plan.url}{path}", token, method, body, str(timeout_s))
            command = (*self.plan.prefix, sys.executable, "-S", "-c", _ASK, *arguments)
            done = subprocess.run(command, capture_output=True, check=False, timeout=timeout_s + 5)
            if done.returncode != 0:
                raise OSError(f"{self.plan.name} {path}: {done.stderr.decode(errors='replace').strip().splitlines()[-1:]}")
            return done.stdout
        request = urllib.request.Request(  # noqa: S310 - http, and our own server
            f"{self.plan.url}{path}", headers={"X-Consul-Token": token}, method=method, data=body.encode() or None
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=timeout_s) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                raise OSError(f"{self.plan.name} {path}: {error.code} {error.read()[:300].decode(errors='replace')}") from error

    def end_of_log(self, lines: int = 15) -> str:
        """For a failure's message."""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]) if self.log.exists() else "no log"


@dataclass
class ConsulCluster:
    """Servers that elect one leader among them."""

    servers: Sequence[ConsulServer]

    @property
    def urls(self) -> tuple[str, ...]:
        return tuple(server.plan.url for server in self.servers)

    @property
    def acl(self) -> Acl | None:
        return self.servers[0].plan.acl

    def start(self) -> None:
        """Start every server that does not run."""
        for server in self.servers:
            if not server.running:
                server.start()

    def stop(self) -> None:
        """End all of them at once, cleanly."""
        for server in self.servers:
            if server.running:
                os.kill(server.pid, signal.SIGTERM)
        for server in self.servers:
            server.stop()

    def kill(self) -> None:
        """End all of them at once, by force."""
        for server in self.servers:
            server.kill()

    def leader(self) -> ConsulServer | None:
        """The server that a majority of those that answer calls leader; None: none."""
        said = [address for server in self.servers if server.running and (address := _leader_said_by(server))]
        for server in self.servers:
            if said.count(f"{_in_url(server.plan.address)}:8300") * 2 > len(self.servers):
                return server
        return None

    def wait_leader(self, timeout_s: float = LEADER_TIMEOUT_S, among: Sequence[ConsulServer] | None = None) -> ConsulServer:
        """Poll until there is a leader (one of `among`) that takes a write."""
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            leader = self.leader()
            if leader is not None and (among is None or leader in among) and _takes_writes(leader):
                return leader
            time.sleep(POLL_S)
        ends = "\n".join(f"--- {server.plan.name}\n{server.end_of_log()}" for server in self.servers)
        raise ConsulNotReady(f"no leader within {timeout_s:g} s\n{ends}")

    def make_leader(self, wanted: ConsulServer, timeout_s: float = LEADER_TIMEOUT_S) -> None:
        """Hand the leadership over to this server."""
        deadline_s = time.monotonic() + timeout_s
        while (leader := self.wait_leader(timeout_s)) is not wanted:
            with suppress(OSError, StopIteration):
                identity = next(p["ID"] for p in self._raft_peers(leader) if p["Node"] == wanted.plan.name)
                leader.ask(f"/v1/operator/raft/transfer-leader?id={identity}", "POST", timeout_s=5.0)
            if time.monotonic() > deadline_s:
                raise ConsulNotReady(f"{wanted.plan.name} did not become leader within {timeout_s:g} s")

    @staticmethod
    def _raft_peers(leader: ConsulServer) -> list[dict[str, str]]:
        peers: list[dict[str, str]] = json.loads(leader.ask("/v1/operator/raft/configuration"))["Servers"]
        return peers

    def token_for(self, rules: str, description: str = "quorate's tests") -> str:
        """A new token with exactly these rules."""
        server = self.wait_leader()
        name = f"policy-{secrets.token_hex(4)}"
        server.ask("/v1/acl/policy", "PUT", json.dumps({"Name": name, "Rules": rules}))
        made = json.loads(server.ask("/v1/acl/token", "PUT", json.dumps({"Description": description, "Policies": [{"Name": name}]})))
        return str(made["SecretID"])


def plans_of(
    names: Sequence[str], addresses: Sequence[str], folder: Path, binary: Path, acl: Acl | None = None, tls: Tls | None = None
) -> tuple[ServerPlan, ...]:
    """Plans of servers that find one another."""
    return tuple(
        ServerPlan(name, folder / name, binary, address, tuple(addresses), len(names), acl=acl, tls=tls)
        for name, address in zip(names, addresses, strict=True)
    )


@contextmanager
def loopback_cluster(
    binary: Path,
    servers: int = 3,
    acl: Acl | None = None,
    tls: Tls | None = None,
    addresses: Sequence[str] = (),
    raft_multiplier: int = 1,
) -> Iterator[ConsulCluster]:
    """A running cluster on loopback addresses of its own (or on these); killed at the end, and its folder is removed.

    On a machine that is busy with other tests a `raft_multiplier` of 1 gives elections for nothing: more costs a second at the start.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="q-consul-")))
        addresses = addresses or free_loopback_addresses(servers)
        names = [f"consul{number}" for number in range(1, servers + 1)]
        plans = plans_of(names, addresses, folder, binary, acl, tls)
        cluster = ConsulCluster([ConsulServer(replace(plan, raft_multiplier=raft_multiplier)) for plan in plans])
        stack.callback(cluster.kill)
        cluster.start()
        cluster.wait_leader()
        yield cluster


def free_loopback_addresses(count: int) -> tuple[str, ...]:
    """Loopback addresses on which none of Consul's ports is taken: each cluster has its own, whoever else runs beside it."""
    while True:
        block = f"127.{1 + secrets.randbelow(250)}.{secrets.randbelow(250)}"
        addresses = tuple(f"{block}.{last}" for last in range(1, count + 1))
        if all(_is_free(address, port) for address in addresses for port in (8300, 8301, 8500, 8501)):
            return addresses


def _is_free(address: str, port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, port))
        except OSError:
            return False
        return True


def _leader_said_by(server: ConsulServer) -> str | None:
    try:
        return str(json.loads(server.ask("/v1/status/leader", timeout_s=1.0)))
    except (OSError, ValueError):
        return None


def _takes_writes(leader: ConsulServer) -> bool:
    write = [{"KV": {"Verb": "set", "Key": "_ready", "Value": "MQ=="}}]
    try:
        leader.ask("/v1/txn", "PUT", json.dumps(write), timeout_s=1.0)
    except OSError:
        return False
    return True


def _in_url(address: str) -> str:
    return f"[{address}]" if ":" in address else address
