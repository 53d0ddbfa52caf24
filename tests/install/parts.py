"""What a part is, and what every way of getting one needs: the cache, running a program, one clear line when it cannot be had.

Only the standard library.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

Say = Callable[[str], None]


class CannotObtain(Exception):
    """The part cannot be had here; the text says why."""


@dataclass(frozen=True)
class Part:
    """One thing that is no Python package. `purpose` completes "needed to ..."; `how` tells a person; `stand_in` is used without it."""

    name: str
    purpose: str
    how: str
    find: Callable[[], Path | None]
    obtain: Callable[[Say], None]
    """Fetch it; what takes long says how it goes on."""
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


def cache_bin() -> Path:
    """Folder of the programs that quorate's tests fetched."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "quorate" / "bin"


def find_program(name: str, version: str | None = None, ask: tuple[str, ...] = ("version",)) -> Path | None:
    """Where a program is: on PATH (also where only root's PATH looks) or in the cache. With `version`: one that names it when asked."""
    on_path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    candidates = [Path(each) for each in (on_path, shutil.which(name, path=str(cache_bin()))) if each is not None]
    return next((each for each in candidates if version is None or version in _said_by(each, ask)), None)


def _said_by(program: Path, ask: tuple[str, ...]) -> str:
    try:
        done = subprocess.run((program, *ask), check=False, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr


def put_into_cache(program: Path) -> None:
    """Copy a program into the cache, whole or not at all."""
    cache_bin().mkdir(parents=True, exist_ok=True)
    half = cache_bin() / f".{program.name}.{os.getpid()}"
    shutil.copy2(program, half)
    half.chmod(0o755)
    half.replace(cache_bin() / program.name)


def run(
    *command: str, folder: Path = Path("/"), timeout_s: float = 600, environment: Mapping[str, str] | None = None, error_mark: str = "E:"
) -> str:
    """What a program said. Raises CannotObtain with its own lines about the error, or its last one."""
    try:
        done = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
            cwd=folder,
            env=os.environ | {"LC_ALL": "C"} | dict(environment or {}),
        )
    except subprocess.TimeoutExpired as error:
        raise CannotObtain(f"{command[0]} did not end within {timeout_s:.0f} s") from error
    except OSError as error:
        raise CannotObtain(f"{command[0]}: {error.strerror}") from error
    if done.returncode != 0:
        lines = done.stdout.splitlines()
        said = [line for line in lines if line.startswith(error_mark)] or lines[-1:]
        raise CannotObtain(f"{command[0]} said: {' '.join(said)[:300]}")
    return done.stdout
