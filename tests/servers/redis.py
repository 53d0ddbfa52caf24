"""Real Redis servers on loopback, for tests: alone, with a password, over TLS, as replicas of one another.

with RedisServer(binary) as master, RedisServer(binary, settings=replica_of(master)) as replica:
    master.start(); replica.start()
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path

from agent.demo.throwaway_postgres import free_port
from tests.polling import eventually
from tests.servers.one_process import OneProcess


class RedisServer(OneProcess):
    """One instance in a folder of its own. `settings` are lines of redis.conf by name; `tls_port` instead of the plain port with `tls`."""

    def __init__(self, binary: Path, *, password: str | None = None, tls: bool = False, settings: Mapping[str, str] | None = None) -> None:
        super().__init__("redis")
        self.port = free_port()
        self.password = password
        self.settings = {
            "bind": "127.0.0.1",
            "port": "0" if tls else str(self.port),
            "dir": str(self.directory),
            "unixsocket": str(self.directory / "redis.sock"),
            "save": '""',
            "appendonly": "no",
            "repl-diskless-sync-delay": "0",
            "loglevel": "notice",
            **({"tls-port": str(self.port)} if tls else {}),
            **({"requirepass": password, "masterauth": password} if password else {}),
            **(settings or {}),
        }
        self._binary = binary

    @property
    def socket(self) -> Path:
        return self.directory / "redis.sock"

    def start(self, *, wait: bool = True) -> None:
        """Start it, and wait until it answers anything at all."""
        config = self.directory / "redis.conf"
        config.write_text("".join(f"{name} {value}\n" for name, value in self.settings.items()), encoding="utf-8")
        self.run(self._binary, config)
        if wait:
            eventually(lambda: self.said("PING") is not None, what=f"Redis answers; see {self.log_file}")

    def said(self, *command: str) -> str | None:
        """The raw beginning of its answer, over the local socket; None: there is none."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(5)
                connection.connect(str(self.socket))
                if self.password:
                    connection.sendall(_packed(("AUTH", self.password)))
                    connection.recv(1024)
                connection.sendall(_packed(command))
                return connection.recv(65536).decode("utf-8", "replace")
        except OSError:
            return None

    def do(self, *command: str) -> str:
        """The same; AssertionError when it answers with an error."""
        answer = self.said(*command)
        assert answer is not None, "no answer"
        assert not answer.startswith("-"), answer
        return answer


def replica_of(master: RedisServer) -> dict[str, str]:
    """Settings of a replica that retries at once."""
    return {"replicaof": f"127.0.0.1 {master.port}", "repl-timeout": "5"}


def _packed(command: tuple[str, ...]) -> bytes:
    parts = [f"${len(part.encode())}\r\n{part}\r\n" for part in command]
    return f"*{len(command)}\r\n{''.join(parts)}".encode()
