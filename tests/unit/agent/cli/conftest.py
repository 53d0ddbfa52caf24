"""Command lines run in this process against a real agent API on loopback; what they printed and their exit code."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.cli.main import run
from agent.web.access import Access
from tests.unit.agent.web.face import Face, serving


@dataclass(frozen=True, slots=True)
class Ran:
    """One command line."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]

FILE = """\
coordination: {{local: {{path: {folder}/store.db}}}}
state_dir: {folder}/state
nodes:
  pg1: {{address: 127.0.0.1, api: "127.0.0.1:{pg1}"}}
  pg2: {{address: 127.0.0.1, api: "127.0.0.1:{pg2}"}}
checks:
  answers: {{type: tcp, address: "127.0.0.1:{pg1}", on: [pg1]}}
  silent: {{type: tcp, address: "127.0.0.1:{closed}", on: [pg2]}}
groups:
  pg-main:
    engine: postgres
    members: {{pg1: {{}}, pg2: {{data_dir: {folder}/pg2, port: 5433}}}}
    postgres: {{data_dir: {folder}/pg1, socket_dir: {folder}}}
"""


@pytest.fixture
def quorate(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command line, as in a pipe."""
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.delenv("QUORATE_NODE", raising=False)
    monkeypatch.delenv("QUORATE_CONFIG", raising=False)

    def call(*argv: str | Path) -> Ran:
        capfd.readouterr()
        code = run([str(word) for word in argv])
        said = capfd.readouterr()
        return Ran(code, said.out, said.err)

    return call


@contextmanager
def running(face: Face, access: Access | None = None) -> Iterator[int]:
    """The server in a thread of its own, as an agent is a process of its own; its port."""
    started: queue.Queue[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = queue.Queue()

    async def serve() -> None:
        async with serving(face, access) as port:
            ended = asyncio.Event()
            started.put((port, asyncio.get_running_loop(), ended))
            await ended.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    port, loop, ended = started.get(timeout=10)
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(10)


@pytest.fixture
def face() -> Face:
    return Face()


@pytest.fixture
def closed_port() -> int:
    """A port on which nobody listens: below those that the kernel gives to tests running beside this one."""
    return 1


@pytest.fixture
def dead_config(tmp_path: Path) -> Path:
    """A configuration of which no agent answers."""
    return write_config(tmp_path, 1, 2, 1)


@pytest.fixture
def config(face: Face, closed_port: int, tmp_path: Path) -> Iterator[Path]:
    """A configuration whose node pg1 answers and whose node pg2 is dead."""
    with running(face) as port:
        yield write_config(tmp_path, port, closed_port, closed_port)


def write_config(folder: Path, pg1: int, pg2: int, closed: int) -> Path:
    file = folder / "quorate.yaml"
    file.write_text(FILE.format(folder=folder, pg1=pg1, pg2=pg2, closed=closed), encoding="utf-8")
    return file
