"""What is configured of one Postgres instance and of its upstream, as plain frozen values, and how its names are spelled for Postgres.

Nothing here touches a server or a file. Passwords are kept out of every repr.
"""

from __future__ import annotations

import hashlib
import os
import pwd
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from psycopg.conninfo import make_conninfo

from actions.base import ActionError

APPLICATION = "quorate"
"""The application_name of quorate's own sessions (a standby's receiver bears its node's name)."""
SLOT_PREFIX = "quorate_"
PASSFILE = "quorate.pgpass"
"""In the data directory, mode 0600: the receiver's password. So it stands in no setting, no SQL text and no log, and a monitoring role that
may read all settings does not see it."""


@dataclass(frozen=True, slots=True)
class Login:
    """How to log in as one role. No password: peer, trust or a certificate."""

    user: str
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where a standby receives from: a member's name and where its Postgres listens."""

    node: str
    host: str
    port: int


class Postmaster(NamedTuple):
    """One life of a server: its first process' pid and when that began, in clock ticks of this boot. Together they are nobody else's."""

    pid: int
    start_ticks: int


@dataclass(frozen=True, slots=True)
class PostgresInstance:
    """One instance. Timeouts are total, in seconds. `admin` must be a superuser, over the local socket."""

    node: str
    data_dir: Path
    socket_dir: Path
    port: int
    log_file: Path
    """Where pg_ctl sends what the server says before its own logging begins."""
    config_file: Path | None = None
    bin_dir: Path | None = None
    os_user: str | None = None
    database: str = "postgres"
    admin: Login = Login("postgres")
    replication: Login = Login("replicator")
    rewind: Login | None = None
    """pg_rewind's login at the leader; None: admin's."""
    query_timeout_s: float = 2.0
    start_timeout_s: float = 60.0
    stop_timeout_s: float = 5.0
    stop_receiving_timeout_s: float = 5.0
    follow_timeout_s: float = 10.0
    promote_timeout_s: float = 10.0
    rejoin_timeout_s: float = 3600.0
    sender_timeout_s: float | None = None
    """After how long without a reply an upstream ends its connection to this standby; None: its own wal_sender_timeout."""

    @property
    def owner_uid(self) -> int:
        """The user id that the server runs as."""
        return os.geteuid() if self.os_user is None else pwd.getpwnam(self.os_user).pw_uid

    @property
    def passfile(self) -> Path:
        return self.data_dir / PASSFILE

    @property
    def local_conninfo(self) -> str:
        """Of the admin's session over the local socket, without a password."""
        return make_conninfo(
            "",
            host=str(self.socket_dir),
            port=self.port,
            user=self.admin.user,
            dbname=self.database,
            application_name=APPLICATION,
            gssencmode="disable",
        )

    def remote_conninfo(self, upstream: Upstream, login: Login, database: str | None) -> str:
        """Of a connection over the network, without a password."""
        dbname = {} if database is None else {"dbname": database}
        return make_conninfo("", host=upstream.host, port=upstream.port, user=login.user, application_name=self.node, **LINK, **dbname)

    def primary_conninfo(self, upstream: Upstream) -> str:
        """The setting of a standby of `upstream`. The password is in the passfile."""
        passfile = {} if self.replication.password is None else {"passfile": str(self.passfile)}
        timeout = {} if self.sender_timeout_s is None else {"options": f"-c wal_sender_timeout={round(self.sender_timeout_s * 1000)}"}
        return f"{self.remote_conninfo(upstream, self.replication, None)} {make_conninfo('', **timeout, **passfile)}".strip()


LINK = {"connect_timeout": 5, "keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 10_000}
"""A dead peer is noticed within about 10 s even when nothing is sent. (wal_receiver_timeout, the user's, notices a silent one.)"""


def slot_name(node: str) -> str:
    """The replication slot that `node` uses at its upstream: injective, of [a-z0-9_], at most 63 characters."""
    name = SLOT_PREFIX + node.replace("_", "__").replace("-", "_d")
    if len(name) <= 63:
        return name
    return f"{name[:46]}_{hashlib.blake2s(node.encode(), digest_size=8).hexdigest()}"


def sync_setting(names: tuple[str, ...]) -> str:
    """synchronous_standby_names that has ALL of `names` acknowledge; empty: nobody."""
    if not names:
        return ""
    quoted = ", ".join('"' + name.replace('"', '""') + '"' for name in names)
    return f"FIRST {len(names)} ({quoted})"


def parse_lsn(text: str) -> int:
    """Bytes since 0/0."""
    high, low = text.strip().split("/")
    return (int(high, 16) << 32) + int(low, 16)


def format_lsn(lsn: int) -> str:
    """As Postgres writes it."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def passfile_content(login: Login) -> bytes:
    """A libpq passfile that knows this login at every host. ActionError when the password cannot stand in one."""
    if "\n" in (login.password or "") or "\0" in (login.password or ""):
        raise ActionError(f"the password of {login.user} holds a line break: libpq cannot read it from a file")
    user, password = (part.replace("\\", "\\\\").replace(":", "\\:") for part in (login.user, login.password or ""))
    return f"*:*:*:{user}:{password}\n".encode()
