"""The agent's side: against a real watchdog, and against one that lies, is silent, or dies."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from agent.clock import SystemClock, boot_id
from agent.errors import WatchdogError
from agent.execution import watchdog_client
from agent.execution.watchdog_client import Armed, FenceResult, WatchdogClient
from agent.watchdog import protocol
from agent.watchdog.protocol import Acknowledged, Answer, Done, Greeting, HandOver, Refused, decode_request, encode
from tests.polling import eventually_async

CLOCK = SystemClock()
UID = os.getuid()
ROOT = Path(__file__).parents[4]


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """A state folder whose watchdog, if one was started, ends after the test."""
    folder = tmp_path / ("s" * 110)
    folder.mkdir()
    yield folder
    with contextlib.suppress(OSError, ValueError):
        pid = int((folder / protocol.LOCK).read_text())
        if str(folder).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
async def client(state: Path) -> AsyncIterator[WatchdogClient]:
    """Connected to a real watchdog, which it started."""
    connection = WatchdogClient(state, CLOCK)
    await connection.connect(spawn=True)
    yield connection
    await connection.close()
    connection._reap()


def pid_of(client: WatchdogClient) -> int:
    assert client.greeting is not None
    return client.greeting.pid


async def test_without_spawn_a_missing_watchdog_is_told(state: Path) -> None:
    client = WatchdogClient(state, CLOCK)
    with pytest.raises(WatchdogError, match=r"^no watchdog answers in "):
        await client.connect(spawn=False)
    assert not client.alive
    with pytest.raises(WatchdogError, match="no connection"):
        await client.status()


async def test_it_starts_one_that_has_a_life_of_its_own(client: WatchdogClient, state: Path) -> None:
    pid = pid_of(client)
    assert os.getsid(pid) == pid
    assert {Path(f"/proc/{pid}/fd/{number}").readlink() for number in (1, 2)} == {state / protocol.LOG}
    assert Path(f"/proc/{pid}/fd/0").readlink() == Path("/dev/null")
    assert Path(f"/proc/{pid}/cwd").readlink() == Path("/")
    assert "guarding" in (state / protocol.LOG).read_text()


async def test_the_next_client_finds_the_same_one(client: WatchdogClient, state: Path) -> None:
    other = WatchdogClient(state, CLOCK)
    await other.connect(spawn=True)
    await other.connect(spawn=True)
    assert pid_of(other) == pid_of(client)
    await other.close()
    assert not other.alive
    assert client.alive


async def test_it_gets_nothing_of_the_agents_environment(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "a-secret")
    client = WatchdogClient(state, CLOCK)
    await client.connect(spawn=True)
    environment = Path(f"/proc/{pid_of(client)}/environ").read_text().split("\0")
    assert {entry.partition("=")[0] for entry in environment} <= {*watchdog_client.KEPT_ENVIRONMENT, ""}
    await client.close()


async def test_what_it_can_be_asked(client: WatchdogClient, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    await client.register("g", data, UID, 0.5)
    assert await client.adopt("g") is None
    deadline = CLOCK.now().after(30)
    acknowledged = await client.hand_over("g", 3, deadline, "n1", 1.0)
    assert (acknowledged.epoch, acknowledged.deadline, acknowledged.nonce) == (3, deadline, "n1")
    assert await client.adopt("g") == Armed(3, deadline, "n1")
    await client.suspend("g", 3)
    assert await client.adopt("g") == Armed(3, deadline, "n1", paused=True)
    later = deadline.after(1)
    await client.hand_over("g", 3, later, "n2", 1.0)
    assert [group.phase for group in await client.status()] == ["armed"]
    with pytest.raises(WatchdogError, match=r"^the watchdog refused: a deadline moves only forwards$"):
        await client.hand_over("g", 3, deadline, "n3", 1.0)
    await client.release("g")
    assert await client.adopt("g") is None
    with pytest.raises(WatchdogError, match="a newer epoch was armed here before"):
        await client.hand_over("g", 2, later, "n4", 1.0)
    service = await asyncio.create_subprocess_exec("/bin/sleep", "60", cwd=data)
    assert await client.fence_now("g") == FenceResult(left=0, killed=1)
    assert await service.wait() == -signal.SIGKILL
    with pytest.raises(WatchdogError, match="not registered"):
        await client.release("other")


async def test_requests_made_at_once_get_their_own_answers(client: WatchdogClient, tmp_path: Path) -> None:
    for number in range(5):
        await client.register(f"g{number}", tmp_path / str(number), UID, 0.5)
    deadline = CLOCK.now().after(30)
    answers = await asyncio.gather(*(client.hand_over(f"g{number}", number + 1, deadline, f"n{number}", 2.0) for number in range(5)))
    assert [(answer.epoch, answer.nonce) for answer in answers] == [(number + 1, f"n{number}") for number in range(5)]


@pytest.mark.parametrize(("path", "budget_s"), [("/", 0.5), ("/tmp/..", 0.5), ("/data", 0), ("/data", 61)])
async def test_what_cannot_be_guarded_is_told_without_asking(client: WatchdogClient, path: str, budget_s: float) -> None:
    with pytest.raises(WatchdogError, match=f"^the watchdog cannot guard {path}: "):
        await client.register("g", Path(path), UID, budget_s)
    assert client.alive


async def test_its_death_is_seen_at_once(client: WatchdogClient) -> None:
    died: list[float] = []
    client.on_death = lambda: died.append(time.monotonic())
    killed = time.monotonic()
    os.kill(pid_of(client), signal.SIGKILL)
    await eventually_async(lambda: died)
    assert died[0] - killed < 0.5
    assert not client.alive
    assert client.greeting is None
    with pytest.raises(WatchdogError, match="no connection"):
        await client.adopt("g")
    await client.connect(spawn=True)
    assert client.alive
    assert len(died) == 1


async def test_a_frozen_one_is_unknown_and_then_given_up(client: WatchdogClient, tmp_path: Path) -> None:
    died: list[int] = []
    client.on_death = lambda: died.append(1)
    await client.register("g", tmp_path, UID, 0.5)
    pid = pid_of(client)
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(WatchdogError, match="whether it took the request is unknown"):
            await client.hand_over("g", 1, CLOCK.now().after(5), "n", 0.1)
        assert died == [1]
        assert not client.alive
    finally:
        os.kill(pid, signal.SIGCONT)
    await client.connect(spawn=False)
    assert (await client.adopt("g")) is not None  # it had been taken after all


async def test_a_request_that_is_cancelled_is_no_death(client: WatchdogClient) -> None:
    died: list[int] = []
    client.on_death = lambda: died.append(1)
    pid = pid_of(client)
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.status()
    finally:
        os.kill(pid, signal.SIGCONT)
    assert died == []
    assert not client.alive
    await client.connect(spawn=False)
    assert await client.status() == ()


async def test_a_request_behind_another_waits_no_longer_than_it_may(client: WatchdogClient) -> None:
    async with client._turn:
        with pytest.raises(WatchdogError, match="was not sent"):
            await client.hand_over("g", 1, CLOCK.now().after(5), "n", 0.05)
    assert client.alive


async def test_a_watchdog_outlives_its_agent(state: Path) -> None:
    code = f"""
import asyncio, os
from pathlib import Path
from agent.clock import SystemClock
from agent.execution.watchdog_client import WatchdogClient
async def main():
    clock = SystemClock()
    client = WatchdogClient(Path({str(state)!r}), clock)
    await client.connect(spawn=True)
    await client.register("g", Path("/nowhere/data"), 1, 0.5)
    await client.hand_over("g", 1, clock.now().after(60), "n", 1)
    os.kill(os.getpid(), 9)
asyncio.run(main())
"""
    agent = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], cwd=ROOT, timeout=30, check=False)
    assert agent.returncode == -signal.SIGKILL
    client = WatchdogClient(state, CLOCK)
    await client.connect(spawn=False)
    armed = await client.adopt("g")
    assert armed is not None
    assert (armed.epoch, armed.nonce) == (1, "n")
    await client.close()


async def test_a_watchdog_that_cannot_start_is_told_with_its_last_words(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state.chmod(0o777)
    monkeypatch.setattr(watchdog_client, "START_TIMEOUT_S", 0.5)
    client = WatchdogClient(state, CLOCK)
    with pytest.raises(
        WatchdogError, match=r"no watchdog answers in .*; its last words: quorate watchdog: the state folder .* could kill here$"
    ):
        await client.connect(spawn=True)
    client._reap()


async def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(WatchdogError, match="cannot be started: No such file"):
        await WatchdogClient(tmp_path / "no", CLOCK).connect(spawn=True)


async def test_a_log_that_grew_is_put_aside(state: Path) -> None:
    (state / protocol.LOG).write_bytes(b"x" * (watchdog_client.LARGEST_LOG + 1))
    client = WatchdogClient(state, CLOCK)
    await client.connect(spawn=True)
    assert (state / protocol.LOG).stat().st_size < 1000
    await client.close()


# ------------------------------------------------------------------ one that cannot be relied on

GREETING = Greeting(protocol.VERSION, 1, 2, boot_id(), watchdog_client._time_namespace(), "yes", "yes", "yes")
Script = Callable[[protocol.Request], Answer | bytes | None]


@contextlib.asynccontextmanager
async def pretender(state: Path, script: Script) -> AsyncIterator[WatchdogClient]:
    """A client of something that answers as the script says; None: silence, b"": it hangs up."""
    handle = os.open(state, os.O_PATH)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    listener.bind(f"/proc/self/fd/{handle}/{protocol.SOCKET}")
    listener.listen()

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        connection, _ = await loop.sock_accept(listener)
        with connection:
            while data := await loop.sock_recv(connection, protocol.LARGEST_REQUEST):
                answer = script(decode_request(data))
                if answer == b"":
                    return
                if answer is not None:
                    connection.send(answer if isinstance(answer, bytes) else encode(answer))

    server = asyncio.create_task(serve())
    client = WatchdogClient(state, CLOCK)
    try:
        yield client
    finally:
        await client.close()
        server.cancel()
        await asyncio.gather(server, return_exceptions=True)
        listener.close()
        os.close(handle)


def after_greeting(answer: Answer | bytes | None) -> Script:
    return lambda request: GREETING if isinstance(request, protocol.Hello) else answer


@pytest.mark.parametrize(
    ("greeting", "sentence"),
    [
        (GREETING._replace(protocol=99), "speaks protocol 99"),
        (GREETING._replace(boot_id="another"), "counts from another boot"),
        (GREETING._replace(time_namespace=1), "lives in another time namespace"),
        (Refused("busy", "16 clients are connected already"), "refused: 16 clients"),
        (Done(), "answered Done where Greeting belongs"),
        (b"\0", "answered nonsense"),
        (b"", "is unknown"),
    ],
)
async def test_one_that_cannot_be_relied_on_is_refused(state: Path, greeting: Answer | bytes, sentence: str) -> None:
    async with pretender(state, lambda _: greeting) as client:
        died: list[int] = []
        client.on_death = lambda: died.append(1)
        with pytest.raises(WatchdogError, match=sentence):
            await client.connect(spawn=False)
        assert not client.alive
        assert died == []


def wrong_acknowledgement(request: protocol.Request) -> Answer:
    assert isinstance(request, protocol.Hello | HandOver)
    return (
        GREETING if isinstance(request, protocol.Hello) else Acknowledged(request.epoch, request.boot_ns, request.raw_ns + 1, request.nonce)
    )


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        (wrong_acknowledgement, "another deadline than it was given"),
        (after_greeting(Done()), "answered Done"),
        (after_greeting(b"{"), "answered nonsense"),
        (after_greeting(b""), "is unknown"),
        (after_greeting(None), "is unknown"),
    ],
)
async def test_an_answer_that_is_none_loses_the_connection(state: Path, script: Script, sentence: str) -> None:
    async with pretender(state, script) as client:
        died: list[int] = []
        client.on_death = lambda: died.append(1)
        await client.connect(spawn=False)
        with pytest.raises(WatchdogError, match=sentence):
            await client.hand_over("g", 1, CLOCK.now().after(1), "n", 0.2)
        assert not client.alive
        assert died == [1]


async def test_an_answer_that_nobody_waits_for_loses_the_connection(state: Path) -> None:
    async with pretender(state, after_greeting(Done())) as client:
        await client.connect(spawn=False)
        await client.release("g")
        assert client.alive
        assert client._socket is not None
        client._socket.send(encode(protocol.Release("g")))
        await eventually_async(lambda: not client.alive)
