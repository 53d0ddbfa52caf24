"""The data directory that every member of a lab begins with: made once per machine, copied for each run.

A copy takes a tenth of a second where initdb takes one. It holds the roles of the throwaway Postgres and the lab's own tables. It lies in
the cache; its name carries a digest of what it is made of, so a change makes a new one.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pwd
import shutil
import subprocess
from pathlib import Path

from agent.demo import throwaway_postgres
from agent.demo.throwaway_postgres import OS_USER, PostgresServer, major_version
from tests.install.parts import cache_bin

TAKE = """
CREATE FUNCTION lab_take() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  IF pg_is_in_recovery() THEN RETURN false; END IF;
  UPDATE lab_taken SET n = n + 1;
  RETURN true;
END $$"""
SQL = (
    "CREATE TABLE lab_ledger (id bigint PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp())",
    "CREATE TABLE lab_taken (n bigint NOT NULL)",
    "INSERT INTO lab_taken VALUES (0)",
    TAKE,
    "GRANT SELECT, INSERT ON lab_ledger TO plain",
    "GRANT SELECT, UPDATE ON lab_taken TO plain",
    "ALTER ROLE quorate_rewind SUPERUSER",
)


def template(bin_dir: Path) -> Path:
    """The folder of the template; made now if there is none yet. Several labs may ask at once."""
    base = cache_bin().parent
    base.mkdir(parents=True, exist_ok=True)
    made_of = "\n".join([*SQL, Path(throwaway_postgres.__file__).read_text(encoding="utf-8")])
    name = f"lab-template-{major_version(bin_dir)}-{hashlib.sha256(made_of.encode()).hexdigest()[:12]}"
    with (base / "lab-template.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (base / name).is_dir():
            for old in base.glob(f"lab-template-{major_version(bin_dir)}-*"):
                shutil.rmtree(old, ignore_errors=True)
            _make(bin_dir, base / name)
    return base / name


def _make(bin_dir: Path, target: Path) -> None:
    with PostgresServer(bin_dir=bin_dir) as server:
        server.initdb()
        server.start()
        for statement in SQL:
            server.psql(statement)
        server.stop()
        half = target.with_name(f".{target.name}.{os.getpid()}")
        shutil.copytree(server.data_dir, half)
        half.rename(target)


def copy_template(bin_dir: Path, data_dir: Path) -> None:
    """A sealed member's data directory: it comes up read-only, whoever starts it."""
    command = ["cp", "-a", "--reflink=auto", str(template(bin_dir)), str(data_dir)]
    subprocess.run(command, check=True, timeout=60)
    (data_dir / "standby.signal").touch()
    if OS_USER is not None:
        account = pwd.getpwnam(OS_USER)
        for folder, _, files in os.walk(data_dir):
            for path in (folder, *(os.path.join(folder, file) for file in files)):  # noqa: PTH118 (a thousand files)
                os.chown(path, account.pw_uid, account.pw_gid)
