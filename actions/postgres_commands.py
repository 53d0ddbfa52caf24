"""Running Postgres' own programs: as the right user, within a deadline, each in a process group that is killed whole when it passes.

Never a shell; nothing of this environment that begins with PG reaches them; a password goes through the child's environment only, never on
a command line, and what a program prints is kept bounded.
"""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from actions.base import ActionError, ActionTimeout
from actions.postgres_instance import Login, PostgresInstance
from actions.program import Rights, Tail, run_to_end

KEPT_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Finished:
    """How a program ended, and the end of what it printed (both streams)."""

    code: int
    said: str

    @property
    def last_words(self) -> str:
        """The most telling line: the last error, else the last line at all."""
        lines = [line.strip() for line in self.said.splitlines() if line.strip()]
        telling = [line for line in lines if any(word in line for word in ("FATAL", "PANIC", "error:", "ERROR", "fatal:"))]
        return (telling or lines or [f"exit code {self.code}"])[-1]


async def run(
    instance: PostgresInstance, program: str, *arguments: str, timeout_s: float, login: Login | None = None, said: Tail | None = None
) -> Finished:
    """Run one program to its end. Raises ActionTimeout and ActionError.

    `login`: its password goes into the child's environment. `said`: filled with the end of what it prints, for one who must know it even
    when this is cancelled.
    """
    path = find_program(instance, program)
    said = Tail(KEPT_BYTES) if said is None else said
    try:
        code = await run_to_end((str(path), *arguments), _environment(login), timeout_s, said, umask=0o077, **_rights(instance.os_user))
    except TimeoutError:  # an OSError, too: it goes first
        last = said.text[-200:].strip()
        raise ActionTimeout(f"{program} took longer than {timeout_s:g} s and was ended{': ' if last else ''}{last}") from None
    except OSError as error:
        raise ActionError(f"{path} cannot be run: {error.strerror}") from error
    return Finished(code, said.text)


def find_program(instance: PostgresInstance, program: str) -> Path:
    """Where `program` is: in bin_dir, else on PATH. Raises ActionError."""
    if instance.bin_dir is not None:
        return instance.bin_dir / program
    found = shutil.which(program)
    if found is None:
        raise ActionError(f"{program} is not on PATH: set postgres.bin_dir")
    return Path(found)


def _environment(login: Login | None) -> Mapping[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    password = {} if login is None or login.password is None else {"PGPASSWORD": login.password}
    return {**kept, "LC_ALL": "C", **password}


def _rights(os_user: str | None) -> Rights:
    """Drop root's rights; somebody else's process cannot change its user, and need not when it is that user."""
    if os_user is None or os.geteuid() != 0:
        return {}
    account = pwd.getpwnam(os_user)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": os.getgrouplist(os_user, account.pw_gid)}
