"""Whether a Consul server is alive, sees a leader, and is well.

liveness: /v1/status/leader answers, with or without a leader. readiness: there is a leader, and as many servers as `peers`. deep: that,
autopilot's view of all servers, the read of a key through the leader, and whether Consul's own election is as slow as by default.
One check asks one server, so that one that is cut off shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeVar
from urllib.parse import quote

from pydantic import Field, SecretStr, TypeAdapter, model_validator
from pydantic.dataclasses import dataclass as parsed

from checks.base import Check, CheckOptions, Facts, Level, Result, RunLog, Status
from checks.http_client import Answer, BaseUrl, HttpClient, HttpSession, parse_json
from checks.network import ProbeFailed, Progress, Reason, clean, within
from checks.secret_file import at_most_one, secret_of
from checks.tls_trust import Trust
from checks.units import Duration, parse_duration_s

SLOW_RAFT_MULTIPLIER = 5
"""Consul's default: made for small machines; an election then takes seconds. Production is 1."""
_HEARTBEAT_S = 1.0
"""Raft's heartbeat timeout at multiplier 1."""
T = TypeVar("T")


class ConsulOptions(CheckOptions):
    """Options of `type: consul`."""

    url: BaseUrl
    """One server (or agent), such as http://127.0.0.1:8500."""
    token: SecretStr | None = None
    """Better: token_file. deep needs operator:read, and key:read for `read_key`; with agent:read it also sees raft_multiplier."""
    token_file: Path | None = None
    """File whose first line is the token; read at each run, so that it may change."""
    peers: int | None = Field(default=None, ge=1)
    """How many servers there should be."""
    read_key: str = Field(default="quorate/check", min_length=1)
    """deep: a key that is read through the leader; it need not exist."""
    slow_after: Duration = 0.5
    """deep: a read that takes longer is degraded."""
    slow_raft: bool = False
    """Whether raft_multiplier may be as slow as Consul's default without being degraded."""
    ca: Path | None = None
    """Certificates to trust instead of the system's."""
    verify: bool = True
    """Whether the certificate must be trusted."""
    cert: Path | None = None
    """Certificate to show, where the server asks for one."""
    key: Path | None = None
    """Its private key, if it is not in the same file."""

    @model_validator(mode="after")
    def _fits_together(self) -> ConsulOptions:
        at_most_one("token", self.token, self.token_file)
        if self.key is not None and self.cert is None:
            raise ValueError("expected cert with key")
        return self


@parsed(frozen=True)
class ServerHealth:
    """One server as autopilot sees it."""

    name: str = Field(alias="Name")
    is_healthy: bool = Field(alias="Healthy")
    is_voter: bool = Field(alias="Voter")
    serf_status: str = Field(alias="SerfStatus")


@parsed(frozen=True)
class Autopilot:
    """/v1/operator/autopilot/health."""

    is_healthy: bool = Field(alias="Healthy")
    failure_tolerance: int = Field(alias="FailureTolerance")
    servers: tuple[ServerHealth, ...] = Field(alias="Servers")


@parsed(frozen=True)
class _RaftTiming:
    heartbeat: str | None = Field(default=None, alias="ConsulRaftHeartbeatTimeout")


@parsed(frozen=True)
class _AgentKind:
    is_server: bool = Field(default=False, alias="Server")


@parsed(frozen=True)
class _Self:
    kind: _AgentKind = Field(alias="Config")
    timing: _RaftTiming = Field(alias="DebugConfig")


@dataclass(frozen=True, slots=True)
class ConsulFacts(Facts):
    """One reading of one server. What was not asked for, or may not be seen, is None."""

    leader: str
    """Its address; empty: none is seen."""
    peers: tuple[str, ...] = ()
    autopilot: Autopilot | None = None
    read_latency_s: float | None = None
    raft_multiplier: float | None = None


_TEXT = TypeAdapter(str)
_TEXTS = TypeAdapter(tuple[str, ...])
_AUTOPILOT = TypeAdapter(Autopilot)
_SELF = TypeAdapter(_Self)


class ConsulCheck(Check[ConsulOptions]):
    """One Consul server, asked at one level."""

    kind: ClassVar[str] = "consul"
    options_model: ClassVar[type[CheckOptions]] = ConsulOptions
    levels: ClassVar[frozenset[Level]] = frozenset(Level)

    def __init__(self, level: Level, options: ConsulOptions) -> None:
        super().__init__(level, options)
        trust = Trust(options.ca, options.verify, options.cert, options.key)
        self._client = HttpClient(f"Consul at {options.url}", options.url, trust)

    async def probe(self, timeout_s: float, log: RunLog) -> Result:
        progress = Progress(log)
        return await within(self._client.name, timeout_s, progress, self._ask(progress))

    async def _ask(self, progress: Progress) -> Result:
        token = secret_of("token_file", self.options.token, self.options.token_file)
        headers = {} if token is None else {"X-Consul-Token": token.get_secret_value()}
        async with self._client.open(progress, headers) as session:
            leader = await _leader(session)
            facts = ConsulFacts(leader)
            if self.level is Level.LIVENESS:
                return Result(Status.HEALTHY, f"{session.name} answers{'' if leader else ', but sees no leader'}", facts=facts)
            if not leader:
                return Result(Status.UNHEALTHY, f"{session.name} sees no leader: nothing can be written", facts=facts)
            peers = _parse(_TEXTS, await session.get("/v1/status/peers"), session.name)
            if self.level is Level.READINESS:
                return self._judge(ConsulFacts(leader, peers))
            latency_s = await self._read(session)
            autopilot = _parse(_AUTOPILOT, await session.get("/v1/operator/autopilot/health"), session.name, also=429)
            return self._judge(ConsulFacts(leader, peers, autopilot, latency_s, await _raft_multiplier(session)))

    async def _read(self, session: HttpSession) -> float:
        """How long a read takes that the leader confirms with a majority."""
        answer = await session.get(f"/v1/kv/{quote(self.options.read_key)}?consistent")
        _judge_code(answer, session.name, also=404)
        return answer.took_s

    def _judge(self, facts: ConsulFacts) -> Result:
        complaints = tuple(self._complaints(facts))
        status = Status.DEGRADED if complaints else Status.HEALTHY
        seen = f"{self._client.name} sees the leader {clean(facts.leader, 80)} and {len(facts.peers)} server(s)"
        return Result(status, "; ".join((seen, *complaints)), facts=facts)

    def _complaints(self, facts: ConsulFacts) -> Iterator[str]:
        options = self.options
        if options.peers is not None and len(facts.peers) != options.peers:
            yield f"there should be {options.peers}"
        if facts.autopilot is not None:
            for server in facts.autopilot.servers:
                if not server.is_healthy:
                    yield f"server {clean(server.name, 80)} is not healthy ({clean(server.serf_status, 40)})"
            if facts.autopilot.failure_tolerance < 1 and (options.peers or len(facts.peers)) > 2:
                yield "not one more server may fail"
        if facts.read_latency_s is not None and facts.read_latency_s > options.slow_after:
            yield f"a consistent read took {facts.read_latency_s * 1000:.0f} ms, longer than {options.slow_after * 1000:g} ms"
        if facts.raft_multiplier is not None and facts.raft_multiplier >= SLOW_RAFT_MULTIPLIER and not options.slow_raft:
            yield f"raft_multiplier is {facts.raft_multiplier:g}: set performance.raft_multiplier to 1, or every election takes seconds"


async def _leader(session: HttpSession) -> str:
    """The leader's address; empty: none is seen. A server without a leader may also answer 500 and say so."""
    answer = await session.get("/v1/status/leader")
    if answer.code == 500 and "leader" in answer.text.lower():
        return ""
    return _parse(_TEXT, answer, session.name)


async def _raft_multiplier(session: HttpSession) -> float | None:
    """From the agent's own configuration; None where it may not be read, or the agent is no server."""
    answer = await session.get("/v1/agent/self")
    if answer.code != 200:
        return None
    own = parse_json(_SELF, answer, session.name)
    if not own.kind.is_server or own.timing.heartbeat is None:
        return None
    try:
        return parse_duration_s(own.timing.heartbeat) / _HEARTBEAT_S
    except ValueError:
        return None


def _parse(adapter: TypeAdapter[T], answer: Answer, name: str, also: int = 200) -> T:
    _judge_code(answer, name, also)
    return parse_json(adapter, answer, name)


def _judge_code(answer: Answer, name: str, also: int = 200) -> None:
    """ProbeFailed unless it answered 200 or `also`."""
    if answer.code in {200, also}:
        return
    words = clean(answer.text, 120)
    if answer.code in {401, 403}:
        raise ProbeFailed(Reason.LOGIN, f"{name} does not let this token ask: {words}")
    raise ProbeFailed(Reason.FAILED, f"{name} answered {answer.code}: {words}")
