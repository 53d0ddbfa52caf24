"""The parts that tests need beside Python: where they are, why they are needed, and how they come onto this machine.

`find` only looks; `prepare` also installs, and says what, why and how long it takes. A part is first looked for on the machine, then in
the cache (${XDG_CACHE_HOME:-~/.cache}/quorate/bin), then taken from Debian: unpacked into the cache where one program is enough (no root,
no service), installed by apt-get where it is not (root only; its services must not start). Works where apt-get update was never run.
Only the standard library.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

APT_TIMEOUT_S = 600
POLICY = Path("/usr/sbin/policy-rc.d")
"""Debian asks this program before a package's service starts; 101 = no."""


class CannotObtain(Exception):
    """The part cannot be had here; the text says why."""


@dataclass(frozen=True)
class Part:
    """One thing that is no Python package. `purpose` completes "needed to ..."; `how` tells a person; `stand_in` is used without it."""

    name: str
    purpose: str
    how: str
    find: Callable[[], Path | None]
    obtain: Callable[[], None]
    cost: str
    stand_in: str | None = None

    @property
    def left_out(self) -> str:
        """What a run without it did not do."""
        return f"{self.name}, needed to {self.purpose}"


@dataclass(frozen=True)
class Missing:
    """A part that could not be had, and why."""

    part: Part
    cause: str


def find(name: str) -> Path | None:
    """Where the part of this name is on this machine; None: nowhere. Never installs."""
    return PARTS[name].find()


def prepare(say: Callable[[str], None]) -> tuple[Missing, ...]:
    """Look for every part and get what is not there; what could not be had and has no stand-in."""
    found = [_prepare(part, say) for part in PARTS.values()]
    return tuple(missing for missing in found if missing is not None)


def _prepare(part: Part, say: Callable[[str], None]) -> Missing | None:
    if (place := part.find()) is not None:
        say(f"{part.name}: {place}")
        return None
    say(f"{part.name} is not here, needed to {part.purpose}: {part.cost}")
    began_s = time.monotonic()
    try:
        part.obtain()
        if (place := part.find()) is None:
            raise CannotObtain("it was fetched but is not where it should be")
    except CannotObtain as error:
        return _do_without(part, str(error), say)
    say(f"{part.name}: {place} (took {time.monotonic() - began_s:.0f} s)")
    return None


def _do_without(part: Part, cause: str, say: Callable[[str], None]) -> Missing | None:
    if part.stand_in is not None:
        say(f"{part.name} cannot be had: {cause}. Instead: {part.stand_in}")
        return None
    say(f"{part.name} cannot be had: {cause}")
    return Missing(part, cause)


def cache_bin() -> Path:
    """Folder of the programs that quorate's tests fetched."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "quorate" / "bin"


# ------------------------------------------------------------------ Debian


def _find_program(name: str) -> Path | None:
    found = shutil.which(name) or shutil.which(name, path=str(cache_bin()))
    return None if found is None else Path(found)


def _unpack_program(package: str, member: str) -> None:
    """Take one program out of a Debian package into the cache. Needs neither root nor the machine's own package lists."""
    _require_apt()
    cache_bin().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="q-apt-") as name:
        folder = Path(name)
        for below in ("lists/partial", "cache/archives/partial"):
            (folder / below).mkdir(parents=True)
        options = [
            f"-oDir::State::Lists={folder}/lists",
            f"-oDir::Cache={folder}/cache",
            "-oDir::State::status=/var/lib/dpkg/status",
            "-oAPT::Sandbox::User=",
            "-oAPT::Update::Post-Invoke=",
            "-oDPkg::Post-Invoke=",
        ]
        _run("apt-get", *options, "-q", "update", folder=folder)
        _run("apt-get", *options, "-q", "download", package, folder=folder)
        archive = next(folder.glob(f"{package}_*.deb"))
        _run("dpkg-deb", "--extract", str(archive), str(folder / "tree"), folder=folder)
        half = cache_bin() / f".{Path(member).name}.{os.getpid()}"
        shutil.copy2(folder / "tree" / member, half)
        half.replace(cache_bin() / Path(member).name)


def _install_package(package: str) -> None:
    """apt-get install, as root, without its service starting; package lists are fetched if they do not know it."""
    _require_apt()
    if os.geteuid() != 0:
        raise CannotObtain(f"apt-get install {package} needs root")
    with _no_service_starts():
        try:
            _run("apt-get", "-q", "-y", "--no-install-recommends", "install", package)
        except CannotObtain:
            _run("apt-get", "-q", "update")
            _run("apt-get", "-q", "-y", "--no-install-recommends", "install", package)


@contextmanager
def _no_service_starts() -> Iterator[None]:
    if POLICY.exists():  # the machine has a policy of its own; it stands
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n", encoding="ascii")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()


def _require_apt() -> None:
    if shutil.which("apt-get") is None:
        raise CannotObtain("this machine has no apt-get")


def _run(*command: str, folder: Path = Path("/")) -> None:
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=APT_TIMEOUT_S,
            cwd=folder,
            env=environment,
        )
    except subprocess.TimeoutExpired as error:
        raise CannotObtain(f"{command[0]} did not end within {APT_TIMEOUT_S} s") from error
    except OSError as error:
        raise CannotObtain(f"{command[0]}: {error.strerror}") from error
    if done.returncode != 0:
        lines = done.stdout.splitlines()
        said = [line for line in lines if line.startswith("E:")] or lines[-1:]
        raise CannotObtain(f"{command[0]} said: {' '.join(said)[:300]}")


# ------------------------------------------------------------------ the parts


def _find_postgres_15() -> Path | None:
    if named := os.environ.get("PG_BIN"):
        return Path(named)
    folder = Path("/usr/lib/postgresql/15/bin")
    return folder if (folder / "initdb").exists() else None


PARTS: Mapping[str, Part] = {
    part.name: part
    for part in (
        Part(
            name="Postgres 15",
            purpose="fail over the servers that Debian 12 ships",
            how="as root: apt-get install postgresql-15; or make test PG_BIN=/path/to/bin",
            find=_find_postgres_15,
            obtain=lambda: _install_package("postgresql-15"),
            cost="apt-get install postgresql-15 (60 MB, about a minute; its service does not start)",
            stand_in="Postgres 16 from the Python package that make demo uses",
        ),
        Part(
            name="promtool",
            purpose="check alert rules and the text of /metrics",
            how="put promtool on PATH; Debian has it in the package prometheus",
            find=lambda: _find_program("promtool"),
            obtain=lambda: _unpack_program("prometheus", "usr/bin/promtool"),
            cost="taking it out of Debian's package prometheus (35 MB to fetch, about 10 s; nothing is installed)",
        ),
    )
}
