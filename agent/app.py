"""Builds the agent and keeps it running: the only file that knows everything. Nothing is decided here.

Order of starting: configuration, state folder (one agent per node), coordinator, watchdog, groups, checks, HTTP. Order of stopping: the
running command ends or is journaled, then HTTP, checks, groups, files; lease and session are kept, so that a restart within ttl goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

import agent
from agent import sd_notify
from agent.clock import Clock, SystemClock, boot_id
from agent.configuration.engine_section import postgres_of
from agent.configuration.followers import commands_of, vips_of
from agent.configuration.group_spec import group_spec_of, node_named
from agent.configuration.loader import load
from agent.configuration.model import Configuration, Follower, Group, Postgres, host_and_port
from agent.configuration.peer_keys import PeerKeys, load_peer_keys
from agent.configuration.secrets import read_secret
from agent.control_loop import GroupLoop, Reports
from agent.coordination.coordinator import Coordinator
from agent.coordination.failsafe import PromiseDesk, recall
from agent.coordination.measured import MeasuredCoordinator
from agent.coordination.node_state import StateFolder, Writer, machine_id
from agent.coordination.peer_auth import Door
from agent.decision.view import FenceLayer, GroupSpec
from agent.errors import ConfigurationError, QuorateError, WatchdogError
from agent.execution.crash_points import CrashPoint
from agent.execution.hands import Hands, HookSpec
from agent.execution.journal import Journal, JournalOutcome
from agent.execution.kernel_lease import kernel_lease_of, take_away
from agent.execution.lease_writer import time_left_s
from agent.execution.record import RecordRing
from agent.execution.recorder import Recorder
from agent.execution.remembered import Remembered
from agent.execution.routes import Follower as Route
from agent.execution.routes import Routes
from agent.execution.watchdog_client import WatchdogClient
from agent.knowledge import HighWater, Knowledge
from agent.node_face import NodeFace
from agent.observation.catalogue import catalogue_of
from agent.observation.scheduler import CheckState, ScheduledCheck, Scheduler
from agent.reporting.audit import Audit, EventKind
from agent.reporting.chronicle import Chronicle
from agent.reporting.log_setup import configure_logging
from agent.reporting.metrics import CheckKey, Metrics

if TYPE_CHECKING:
    from agent.coordination.peer_client import PeerClient
    from agent.web.server import Serving

log = structlog.get_logger()

STOP_COMMANDS_S = 2.0
"""How long a stopping agent waits for its running command."""
WATCHDOG_RETRY_S = 0.2
SUPERVISION_S = 0.5


@dataclass(slots=True)
class Parts:
    """What the agent is made of, once built."""

    configuration: Configuration
    node: str
    clock: Clock
    folder: StateFolder
    journal: Journal
    records: RecordRing
    coordinator: Coordinator
    watchdog: WatchdogClient | None
    audit: Audit
    metrics: Metrics
    scheduler: Scheduler
    keys: PeerKeys | None = None
    peers: PeerClient | None = None
    desks: dict[str, PromiseDesk] = field(default_factory=dict)
    groups: dict[str, GroupLoop] = field(default_factory=dict)


def run_agent(configuration_path: Path, node: str | None) -> int:
    """The command `quorate agent`. Returns the exit code; raises QuorateError for what a user has to mend."""
    configure_logging()
    return asyncio.run(App(configuration_path, node).run())


class App:
    """One agent, from start to stop."""

    def __init__(self, configuration_path: Path, node: str | None, environment: Mapping[str, str] | None = None) -> None:
        self._path = configuration_path
        self._environment = dict(os.environ) if environment is None else dict(environment)
        self._given_node = node
        self._stopping = asyncio.Event()
        self._reload_wanted = asyncio.Event()
        self._serving: Serving | None = None
        self._reload_ok = True

    async def run(self) -> int:
        """Start, stay, stop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload_wanted.set)
        configuration = load(self._path, self._environment)
        node = node_named(configuration, self._given_node, self._environment, socket.gethostname())
        parts = await self._build(configuration, node)
        try:
            await self._start(parts)
            return await self._stay(parts)
        finally:
            await self._stop(parts)

    # ------------------------------------------------------------------ building

    async def _build(self, configuration: Configuration, node: str) -> Parts:
        clock = SystemClock()
        incarnation = f"{boot_id()[:8]}-{clock.nonce()}"
        folder = StateFolder.open(configuration.state_dir / node, Writer(boot_id(), machine_id(), incarnation))
        journal = Journal.open(folder.path, incarnation, clock)
        audit = Audit(clock, log)
        metrics = Metrics()
        coordinator = MeasuredCoordinator(await open_coordinator(configuration, clock), clock, metrics.coordination_asked)
        parts = Parts(
            configuration=configuration,
            node=node,
            clock=clock,
            folder=folder,
            journal=journal,
            records=RecordRing.open(folder.path),
            coordinator=coordinator,
            watchdog=WatchdogClient(folder.path, clock) if needs_watchdog(configuration, node) else None,
            audit=audit,
            metrics=metrics,
            scheduler=Scheduler(clock, on_run=lambda state: _count_run(metrics, state)),
        )
        if configuration.api.peer_key_file is not None:
            parts.keys = load_peer_keys(configuration.api.peer_key_file)
            parts.peers = peers_of(configuration, node, parts.keys, clock)
        for name in configuration.groups:
            spec = group_spec_of(configuration, name)
            if node in spec.voters:
                parts.groups[name] = self._build_group(parts, spec, incarnation)
        return parts

    def _build_group(self, parts: Parts, spec: GroupSpec, incarnation: str) -> GroupLoop:
        from agent.engines import leader_probe_of, service_of  # noqa: PLC0415 - an engine's client library only when there is a group

        remembered = Remembered(parts.folder, spec.name)
        highest = remembered.state.highest
        knowledge = Knowledge(parts.node, incarnation, spec, HighWater(highest.epoch, highest.sequence))
        knowledge.own_timelines = remembered.own_timelines
        recall(knowledge, remembered.state, parts.clock.now())
        is_member = parts.node in spec.members
        group = parts.configuration.groups[spec.name]
        kernel, absence = None, ""
        if is_member:
            on_cut = partial(parts.metrics.service_fenced, spec.name, FenceLayer.KERNEL)
            kernel, absence = kernel_lease_of(parts.configuration, spec, parts.node, parts.clock, on_cut)
            if kernel is None:
                take_away(parts.configuration, spec, parts.node)
        hands = Hands(
            clock=parts.clock,
            coordinator=parts.coordinator,
            knowledge=knowledge,
            remembered=remembered,
            journal=parts.journal,
            service=service_of(parts.configuration, spec.name, parts.node) if is_member else None,
            watchdog=parts.watchdog if is_member and group.fence != () else None,
            crash_point=CrashPoint(self._environment, parts.folder.path),
            kernel=kernel,
            kernel_absence=absence,
            hooks=hooks_of(group) if is_member else (),
            peers=parts.peers,
        )
        parts.desks[spec.name] = PromiseDesk(knowledge, remembered, parts.clock)
        knowledge.told = remembered.state.told
        chronicle = Chronicle(parts.audit, parts.metrics, parts.clock, parts.coordinator)
        recorder = Recorder(parts.records, parts.clock)
        loop = GroupLoop(
            hands,
            leader_probe_of(parts.configuration, spec.name),
            Reports(decided=(chronicle.decided, recorder.decided), finished=(chronicle.finished,)),
        )
        if is_member and vips_of(group):
            hands.routes = Routes(vip_routes_of(spec.name, group), parts.clock, loop.routes_changed)
        return loop

    # ------------------------------------------------------------------ living

    async def _start(self, parts: Parts) -> None:
        """Everything begins to turn; the first renewal of an own lease comes first of all."""
        parts.audit.note(EventKind.AGENT_STARTED, None, None, f"quorate {agent.__version__} on {parts.node}", pid=os.getpid())
        await self._drop_unfinished(parts)
        if parts.watchdog is not None:
            parts.watchdog.on_death = lambda: self._watchdog_died(parts)
            with contextlib.suppress(WatchdogError):
                await parts.watchdog.connect(spawn=True)
        for loop in parts.groups.values():
            await loop.start()
        face = NodeFace(parts.node, parts.clock, parts.coordinator, parts.groups, parts.scheduler, parts.audit)
        parts.scheduler.subscribe(lambda state: _note_check(parts.audit, state))
        await self._take_catalogue(parts, catalogue_of(parts.configuration, parts.node))
        parts.scheduler.start()
        await self._serve(parts, face)
        sd_notify.notify("READY=1")

    async def _serve(self, parts: Parts, face: NodeFace) -> None:
        """Listen on this node's address of `nodes`. Imported only now: a restarted agent first renews."""
        from agent.web.access import Access  # noqa: PLC0415 - see above
        from agent.web.peers import PeerEdge  # noqa: PLC0415
        from agent.web.server import make_app, serve  # noqa: PLC0415
        from agent.web.tokens import load_tokens  # noqa: PLC0415

        api = parts.configuration.api
        tokens = None if api.tokens_file is None else load_tokens(api.tokens_file)
        door = None if parts.keys is None else Door(parts.node, parts.keys, parts.clock)
        edge = make_app(face, parts.metrics, Access(tokens, private=api.private), PeerEdge(door, parts.desks))
        host, port = host_and_port(parts.configuration.nodes[parts.node].api)
        self._serving = await serve(edge, host, port, api.tls)

    async def _drop_unfinished(self, parts: Parts) -> None:
        """What an earlier life left in the journal is not resumed: the core decides anew from what it sees, which finishes or undoes it."""
        for entry in parts.journal.unfinished():
            last = entry.steps[-1] if entry.steps else "begin"
            sentence = f"{entry.command} of epoch {entry.epoch} was cut short at {last}; it is decided anew"
            await parts.journal.end(entry.identity, JournalOutcome.DROPPED, sentence)
            parts.audit.note(EventKind.COMMAND_FAILED, entry.group, entry.epoch, sentence)

    async def _take_catalogue(self, parts: Parts, catalogue: tuple[ScheduledCheck, ...]) -> None:
        await parts.scheduler.reload(catalogue)
        keys = [CheckKey(c.name, type(c.check).kind, c.check.level.value) for c in catalogue]
        parts.metrics.keep(keys, parts.groups)

    async def _stay(self, parts: Parts) -> int:
        """Until told to stop, or until a loop has ended by a bug: then the supervisor starts the agent anew."""
        while not self._stopping.is_set():
            stop, reload_ = asyncio.create_task(self._stopping.wait()), asyncio.create_task(self._reload_wanted.wait())
            await asyncio.wait({stop, reload_}, timeout=SUPERVISION_S, return_when=asyncio.FIRST_COMPLETED)
            stop.cancel()
            reload_.cancel()
            if self._reload_wanted.is_set():
                self._reload_wanted.clear()
                await self._reload(parts)
            for name, loop in parts.groups.items():
                if loop.failed is not None:
                    log.error("agent.failed", group=name, reason=repr(loop.failed))
                    return 70
            if parts.watchdog is not None and not parts.watchdog.alive:
                await self._find_watchdog(parts)
        return 0

    async def _find_watchdog(self, parts: Parts) -> None:
        """Connect to the watchdog again, or start one. What an earlier one held is void."""
        assert parts.watchdog is not None
        try:
            await parts.watchdog.connect(spawn=True)
        except WatchdogError as error:
            log.warning("watchdog.missing", reason=str(error))
            await asyncio.sleep(WATCHDOG_RETRY_S)
            return
        parts.audit.note(EventKind.WATCHDOG_FOUND, None, None, "a watchdog answers")
        for loop in parts.groups.values():
            await loop.watchdog_came_back()

    def _watchdog_died(self, parts: Parts) -> None:
        parts.audit.note(EventKind.WATCHDOG_LOST, None, None, "the watchdog is gone: without it nothing here may take writes")
        for loop in parts.groups.values():
            loop.wake()

    async def _reload(self, parts: Parts) -> None:
        """Take a changed file. A bad one changes nothing; what only a restart can change is named."""
        try:
            fresh = load(self._path, self._environment)
            refuse_restart_only(parts.configuration, fresh)
            catalogue = catalogue_of(fresh, parts.node)
        except ConfigurationError as error:
            self._reload_ok = False
            for problem in error.problems:
                log.error("configuration.refused", problem=problem)  # noqa: TRY400 - a user's mistake is no traceback
            return
        self._reload_ok = True
        parts.configuration = fresh
        for name, loop in parts.groups.items():
            loop.reconfigure(group_spec_of(fresh, name))
        await self._take_catalogue(parts, catalogue)
        log.info("configuration.reloaded", path=str(self._path))

    async def _stop(self, parts: Parts) -> None:
        """Keep lease and session as they are; say what happens if nobody comes back."""
        if self._serving is not None:
            await self._serving.close()
        await parts.scheduler.close()
        for loop in parts.groups.values():
            await loop.stop(STOP_COMMANDS_S)
        last_words = {name: farewell(loop.hands) for name, loop in parts.groups.items()}
        if parts.watchdog is not None:
            parts.watchdog.on_death = None
            await parts.watchdog.close()
        for name, loop in parts.groups.items():
            if last_words[name] is None and loop.hands.knowledge.session is not None:
                with contextlib.suppress(QuorateError):
                    await parts.coordinator.close_session(loop.hands.knowledge.session)
        await parts.coordinator.close()
        if parts.peers is not None:
            await parts.peers.close()
        await parts.journal.close()
        parts.records.close()
        parts.folder.close()
        for name, sentence in last_words.items():
            if sentence is not None:
                parts.audit.note(EventKind.AGENT_STOPPED, name, None, sentence)
        parts.audit.note(EventKind.AGENT_STOPPED, None, None, "stopped")


def farewell(hands: Hands) -> str | None:
    """What happens if this node's agent does not come back; None: nothing, it does not lead."""
    knowledge, tenure = hands.knowledge, hands.knowledge.tenure
    if tenure is None:
        return None
    if tenure.record.paused and knowledge.fences.suspended:
        return f"this node leads {knowledge.group.name}, which is paused: nobody takes over and no fence falls before it is resumed"
    left_s = time_left_s(hands) or 0.0
    return f"this node leads {knowledge.group.name}: its fences fall in {left_s:.1f} s, and it fails over unless an agent is back by then"


def peers_of(configuration: Configuration, node: str, keys: PeerKeys, clock: Clock) -> PeerClient:
    """The line to the other agents."""
    from agent.coordination.peer_client import PeerClient, tls_to_peers  # noqa: PLC0415 - its client library only when it is used

    tls = configuration.api.tls
    addresses = {name: other.api for name, other in configuration.nodes.items()}
    return PeerClient(node, addresses, keys, clock, None if tls is None else tls_to_peers(tls))


def vip_routes_of(name: str, group: Group) -> tuple[Route, ...]:
    """The group's addresses as routes. Raises ConfigurationError where the package that they need is missing."""
    try:
        from agent.execution.route_vip import VipRoute  # noqa: PLC0415 - pyroute2 comes with it: only where there is a VIP
    except ImportError as error:
        missing = f"groups.{name}.follows_leader: a vip needs the Python package {error.name or 'pyroute2'}: pip install 'quorate[net]'"
        raise ConfigurationError((missing,)) from None
    return tuple(VipRoute(vip.address, vip.interface) for vip in vips_of(group))


def hooks_of(group: Group) -> tuple[HookSpec, ...]:
    """The operator's commands in the order of the file."""
    hooks = [follower.hook for follower in group.follows_leader if follower.hook is not None]
    return tuple(HookSpec(role, command, hook.timeout) for hook in hooks for role, command in commands_of(hook))


async def open_coordinator(configuration: Configuration, clock: Clock) -> Coordinator:
    """The coordinator that is configured. Consul is not asked: an agent starts without it."""
    given = configuration.coordination
    if given.local is not None:
        from agent.coordination.local import LocalCoordinator  # noqa: PLC0415 - SQLite comes with it: only where it is configured

        return await LocalCoordinator.open(given.local.path, clock)
    assert given.consul is not None
    from agent.coordination.consul import ConsulCoordinator  # noqa: PLC0415 - its client library only where it is configured
    from agent.coordination.consul_access import Access, ConsulPlace  # noqa: PLC0415

    token = given.consul.token
    place = ConsulPlace(
        urls=given.consul.urls,
        prefix=given.consul.prefix,
        token=None if token is None else token.get_secret_value(),
        token_file=given.consul.token_file,
        ca_file=given.consul.ca_file,
        cert=given.consul.cert,
        key=given.consul.key,
    )
    return ConsulCoordinator(place, Access(place, read_secret), clock)


def needs_watchdog(configuration: Configuration, node: str) -> bool:
    """Whether this node runs a service of a group in which the watchdog has to stand."""
    specs = (group_spec_of(configuration, name) for name in configuration.groups)
    return any(node in spec.members and FenceLayer.WATCHDOG in spec.required_fences for spec in specs)


def refuse_restart_only(old: Configuration, new: Configuration) -> None:
    """Raise ConfigurationError when the new file changes what only a restart can take."""
    kept = [name for name in old.groups if name in new.groups]
    changed = [
        name
        for name, before, after in (
            ("state_dir", old.state_dir, new.state_dir),
            ("coordination", old.coordination, new.coordination),
            ("api", old.api, new.api),
            ("nodes", old.nodes, new.nodes),
            ("the list of groups", sorted(old.groups), sorted(new.groups)),
            ("fence of a group", [old.groups[name].fence for name in kept], [new.groups[name].fence for name in kept]),
            ("what follows a leader", _followers(old, kept), _followers(new, kept)),
            ("members of a group", _voters(old, kept), _voters(new, kept)),
            ("where a group's instances are", _instances(old, new, kept), _instances(new, old, kept)),
        )
        if before != after
    ]
    if changed:
        raise ConfigurationError((f"{', '.join(changed)} changed: that takes a restart of the agent; nothing was changed",))


def _followers(configuration: Configuration, names: list[str]) -> list[tuple[Follower, ...]]:
    return [configuration.groups[name].follows_leader for name in names]


def _voters(configuration: Configuration, names: list[str]) -> list[tuple[list[str], tuple[str, ...]]]:
    return [(sorted(configuration.groups[name].members), configuration.groups[name].witnesses) for name in names]


def _instances(configuration: Configuration, other: Configuration, names: list[str]) -> list[Postgres]:
    """How to reach and control each instance that both files name: services and probes are built from it once."""
    pairs = [(configuration.groups[name], other.groups[name]) for name in names]
    return [postgres_of(group, node) for group, theirs in pairs for node in sorted(group.members) if node in theirs.members]


def _count_run(metrics: Metrics, state: CheckState) -> None:
    last = state.last
    if last is not None:
        key = CheckKey(state.name, type(state.scheduled.check).kind, state.scheduled.check.level.value)
        metrics.check_ran(key, last.status, last.latency_s, state.ran_wall_s or 0.0)


def _note_check(audit: Audit, state: CheckState) -> None:
    sentence = "" if state.last is None else state.last.sentence
    audit.note(EventKind.CHECK_CHANGED, None, None, f"{state.name} is {state.status.value}: {sentence}", check=state.name)
