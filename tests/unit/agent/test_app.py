from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from agent.app import farewell, needs_watchdog, open_coordinator, refuse_restart_only, vip_routes_of
from agent.configuration.loader import parse
from agent.configuration.model import Configuration
from agent.coordination.lease import Tenure
from agent.errors import ConfigurationError, CoordinationError
from tests.polling import eventually_async
from tests.unit.agent.configuration.conftest import BASE
from tests.unit.agent.stage import ShiftedClock, Stage, first_record, staged, swift_folder

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]


def configured(text: str = BASE) -> Configuration:
    return parse(text, "base.yaml", {})


# ---------------------------------------------------------------------------------------------------- what a reload may change

CHECK = "checks:\n  gate: {type: tcp, address: '127.0.0.1:1'}\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("engine: postgres", "engine: postgres\n    lease: {ttl: 9s}\n    durability: sync\n    on_crash: restart"),
        ("priority: 90", "priority: 80"),
        ("priority: 90", "nofailover: true"),
        ("nodes:", CHECK + "nodes:"),
        ("nodes:", "defaults: {every: 9s}\nnodes:"),
    ],
)
def test_what_is_taken_without_a_restart(before: str, after: str) -> None:
    refuse_restart_only(configured(), configured(BASE.replace(before, after)))


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ("nodes:", "state_dir: /srv/state\nnodes:", "state_dir"),
        ("coordination.sqlite", "other.sqlite", "coordination"),
        ("nodes:", "api: {private: true}\nnodes:", "api"),
        ("8482", "8483", "nodes"),
        ("  pg-main:", "  pg-other:", "the list of groups"),
        ("engine: postgres", "engine: postgres\n    fence: []", "fence of a group"),
        ("      pg2: {port: 5434, data_dir: /srv/pg2, priority: 90}\n", "", "members of a group"),
        ("engine: postgres", "engine: postgres\n    witnesses: [pg3]", "nodes, members of a group"),
        ("port: 5434", "port: 5435", "where a group's instances are"),
        ("/run/postgresql", "/tmp/postgresql", "where a group's instances are"),
        ("socket_dir:", "monitor: {user: other}, socket_dir:", "where a group's instances are"),
    ],
)
def test_what_takes_a_restart_is_named_and_changes_nothing(before: str, after: str, named: str) -> None:
    text = BASE.replace(before, after)
    if "witnesses" in after:
        text = text.replace("nodes:\n", "nodes:\n  pg3: {api: 127.0.0.1:8483}\n")
    with pytest.raises(ConfigurationError) as caught:
        refuse_restart_only(configured(), configured(text))
    assert caught.value.problems == (f"{named} changed: that takes a restart of the agent; nothing was changed",)


# ---------------------------------------------------------------------------------------------------- the watchdog


@pytest.mark.parametrize(
    ("fence", "node", "needed"),
    [("auto", "pg1", True), ("auto", "pg3", False), ("[watchdog]", "pg2", True), ("[seal]", "pg1", False), ("[]", "pg1", False)],
)
def test_who_needs_a_watchdog(fence: str, node: str, needed: bool) -> None:
    text = BASE.replace("nodes:\n", "nodes:\n  pg3: {api: 127.0.0.1:8483}\n").replace(
        "engine: postgres", f"engine: postgres\n    witnesses: [pg3]\n    fence: {fence}"
    )
    assert needs_watchdog(configured(text), node) is needed


# ---------------------------------------------------------------------------------------------------- the last line


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with staged() as one:
        yield one


def lead(stage: Stage, *, paused: bool = False) -> None:
    now = stage.clock.now()
    stage.knowledge.tenure = Tenure(first_record(paused=paused), 3, "s1", dated=now)
    stage.knowledge.fences = replace(stage.knowledge.fences, armed_epoch=1, armed_deadline=now.after(1.5), suspended=paused)


def test_who_does_not_lead_leaves_without_a_word(stage: Stage) -> None:
    assert farewell(stage.hands) is None


def test_a_leader_that_leaves_says_when_its_fences_fall(stage: Stage) -> None:
    lead(stage)
    stage.clock.shift_s += 0.5
    said = farewell(stage.hands)
    assert said is not None
    assert said.startswith("this node leads pg-main: its fences fall in ")
    assert said.endswith(" s, and it fails over unless an agent is back by then")
    assert 0.5 < float(said.split(" fall in ")[1].split(" s,")[0]) <= 1.0


def test_in_a_pause_nothing_falls(stage: Stage) -> None:
    lead(stage, paused=True)
    stage.clock.shift_s += 600
    assert farewell(stage.hands) == "this node leads pg-main, which is paused: nobody takes over and no fence falls before it is resumed"


def test_a_lease_that_no_watchdog_acknowledged_is_over_at_once(stage: Stage) -> None:
    lead(stage)
    stage.knowledge.fences = replace(stage.knowledge.fences, armed_epoch=None)
    assert "fall in 0.0 s" in (farewell(stage.hands) or "")


async def test_the_coordinator_that_is_configured() -> None:
    with swift_folder() as folder:
        text = BASE.replace("/var/lib/quorate/coordination.sqlite", f"{folder}/store.db")
        coordinator = await open_coordinator(configured(text), ShiftedClock())
        assert f"{folder}/store.db" in coordinator.description
        await coordinator.close()
        (folder / "store.db").write_bytes(b"no database" * 1000)
        with pytest.raises(CoordinationError):
            await open_coordinator(configured(text), ShiftedClock())


async def test_consul_is_not_asked_before_it_is_needed_but_its_files_are_read(tmp_path: Path) -> None:
    token = tmp_path / "token"
    consul = f"consul: {{url: 'http://127.0.0.1:1', prefix: here, token_file: {token}}}"
    text = BASE.replace("local: {path: /var/lib/quorate/coordination.sqlite}", consul)
    with pytest.raises(ConfigurationError, match=f"{token}: cannot be read"):
        await open_coordinator(configured(text), ShiftedClock())
    token.write_text("secret\n", encoding="utf-8")
    coordinator = await open_coordinator(configured(text), ShiftedClock())
    assert coordinator.description.startswith("Consul at http://127.0.0.1:1, keys below here/")
    with pytest.raises(CoordinationError):
        await coordinator.identity()
    await coordinator.close()


def test_a_vip_without_its_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    group = configured(BASE.replace("engine:", "follows_leader: [{vip: {address: 192.0.2.100/24}}]\n    engine:")).groups["pg-main"]
    assert [route.name for route in vip_routes_of("pg-main", group)] == ["vip 192.0.2.100"]
    monkeypatch.setitem(sys.modules, "pyroute2", None)
    for module in ("actions.vip_netlink", "actions.vip", "agent.execution.route_vip"):
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(ConfigurationError) as caught:
        vip_routes_of("pg-main", group)
    needed = "groups.pg-main.follows_leader: a vip needs the Python package pyroute2: pip install 'quorate[net]'"
    assert caught.value.problems == (needed,)


# ---------------------------------------------------------------------------------------------------- the real program

FILE = """\
coordination: {{local: {{path: {folder}/store.db}}}}
state_dir: {folder}/state
nodes:
  pg1: {{api: "127.0.0.1:{port}"}}
  pg2: {{api: "127.0.0.1:{taken}"}}
checks:
  gate: {{type: tcp, address: "127.0.0.1:{port}", every: 1s}}
"""


class Agent:
    """`quorate agent` as a program."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self.log = log

    def lines(self) -> list[str]:
        return self.log.read_text().splitlines()

    async def says(self, word: str) -> str:
        """The first line with this word in it; an agent that has ended says no more."""

        def line() -> str | None:
            assert self.process.returncode is None or any(word in each for each in self.lines()), self.lines()
            return next((each for each in self.lines() if word in each), None)

        found = await eventually_async(line, 20, f"{word!r} in the log")
        assert found is not None
        return found

    async def ends(self) -> int:
        async with asyncio.timeout(20):
            return await self.process.wait()


@asynccontextmanager
async def running(config: Path, *words: str, name: str = "agent", environment: dict[str, str] | None = None) -> AsyncIterator[Agent]:
    log = config.parent / f"{name}.log"
    plain = {key: value for key, value in os.environ.items() if not key.startswith("QUORATE_")}
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "agent", "agent", "--config", str(config), *words,
            stdout=output, stderr=output, cwd=ROOT, env={**plain, **(environment or {})},
        )  # fmt: skip
    try:
        yield Agent(process, log)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.fixture
def folder() -> Iterator[Path]:
    with swift_folder() as one:
        yield one


@pytest.fixture
def config(folder: Path) -> Path:
    with socket.socket() as one, socket.socket() as other:
        for unused in (one, other):
            unused.bind(("127.0.0.1", 0))
        ports = {"port": one.getsockname()[1], "taken": other.getsockname()[1]}
    file = folder / "quorate.yaml"
    file.write_text(FILE.format(folder=folder, **ports))
    return file


async def test_an_agent_takes_good_files_refuses_bad_ones_and_ends_when_told(config: Path) -> None:
    text = config.read_text()
    async with running(config, "--node", "pg1") as agent:
        await agent.says("gate is healthy")
        for bad in (text.replace("every: 1s", "every: 1"), text.replace("state_dir", "state_dri"), text.replace("/store.db", "/other.db")):
            refused = len([line for line in agent.lines() if "configuration.refused" in line])
            config.write_text(bad)
            agent.process.send_signal(signal.SIGHUP)
            await eventually_async(lambda n=refused: len([x for x in agent.lines() if "configuration.refused" in x]) > n, 10)  # type: ignore[misc]
        assert not any("configuration.reloaded" in line for line in agent.lines())
        config.write_text(text + '  door: {type: tcp, address: "127.0.0.1:1", every: 1s, fall: 1}\n')
        agent.process.send_signal(signal.SIGHUP)
        await agent.says("configuration.reloaded")
        await agent.says("door is unhealthy")
        async with running(config, "--node", "pg1", name="second") as second:
            assert await second.ends() == 1
            assert second.lines() == [f"quorate: another agent (pid {agent.process.pid}) uses the state folder {config.parent}/state/pg1"]
        agent.process.terminate()
        assert await agent.ends() == 0
        assert json.loads(agent.lines()[-1])["event"] == "agent.stopped"
        assert not [line for line in agent.lines() if "Traceback" in line]


async def test_what_a_person_has_to_mend_is_one_line_and_an_exit_code(config: Path) -> None:
    with socket.socket() as taken:
        port = parse(config.read_text(), "f", {}).nodes["pg2"].api.partition(":")[2]
        taken.bind(("127.0.0.1", int(port)))
        taken.listen()
        broken = config.parent / "broken.yaml"
        broken.write_text(config.read_text().replace("nodes:", "node:"))
        async with (
            running(broken, "--node", "pg1", name="a") as bad,
            running(config, "--node", "pg9", name="b") as unknown,
            running(config, name="c", environment={"QUORATE_NODE": "pg8"}) as unnamed,
            running(config, "--node", "pg2", name="d") as second,
        ):
            assert await bad.ends() == 78
            assert [line.partition(": ")[0] for line in bad.lines()][:1] == [f"{broken}:3"]
            assert (await unknown.ends(), await unnamed.ends()) == (64, 78)
            assert [line.startswith("quorate: --node pg9: no such node") for line in unknown.lines()] == [True]
            assert [line.startswith("QUORATE_NODE=pg8: no such node") for line in unnamed.lines()] == [True]
            assert await second.ends() == 1
            said = [line for line in second.lines() if line.startswith("quorate: ")]
            assert said == [f"quorate: cannot listen on 127.0.0.1 port {port}: another program (another agent?) has this port"]
            assert not [line for line in second.lines() if "Traceback" in line]
