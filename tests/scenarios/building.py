"""From a few words to a whole View: a base picture of a healthy group, and what a scenario says is different.

The base: group `pg-main`, members pg1 (leads, epoch 7), pg2 and pg3 (follow it), ttl 5 s, renewed 0.3 s ago. Times are written as
`0.3s ago` or `in 2s`, counted from the step that says them; what is not said stays fresh. An unknown word is an error, never ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from agent.coordination.coordinator import Entry
from agent.coordination.failsafe_rules import Promise
from agent.coordination.lease import (
    Attempt,
    Debt,
    LeaseRecord,
    LeaseState,
    Position,
    Promotion,
    Sight,
    Tenure,
    Terms,
    encode_record,
)
from agent.decision import command as commands
from agent.decision.command import Command, HookRole, IntentOutcome, RejoinMode
from agent.decision.context import Context
from agent.decision.engine import ENGINES
from agent.decision.memory import Memory
from agent.decision.quorum import votes_needed
from agent.decision.situation import Situation
from agent.decision.view import (
    Branch,
    Candidacy,
    CoordinationView,
    Durability,
    FenceLayer,
    FenceView,
    GroupSpec,
    InFlight,
    Intent,
    IntentKind,
    LeaseView,
    MemberView,
    Observation,
    OnCrash,
    Outcome,
    RouteView,
    ServiceState,
    ServiceView,
    Told,
    View,
    VoteView,
    WordView,
)
from agent.instant import Instant
from tests.scenarios.pieces import changed, instant, own_member, replica
from tests.scenarios.words import Words, resolve

INDEX = 900
SYSTEM = "7300000000000000001"
HISTORY = [[1, 1000], [2, 3000]]
PROMOTIONS = [[7, "pg1", 3, 2, 3000]]
RESERVED = [7, "pg1", 4, 3, 0]
"""A leader that stands by has reserved its next timeline number; one that crashes has it in hand, too."""
HERE = [3, 5000]


@dataclass(frozen=True, slots=True)
class Scene:
    """What one step hands to the core."""

    view: View
    now: Instant


class Builder:
    """Builds the view of one step. `given` is already resolved."""

    def __init__(self, given: Mapping[str, Any], at_s: float) -> None:
        self.given = Words("given", given)
        self.at_s = at_s
        self.node: str = self.given.take("node", "pg2")
        self.group = self._group(Words("group", self.given.take("group", {})))
        raw_lease = self.given.take("lease", {})
        self.never_formed = raw_lease == "none"
        self.lease_words = Words("lease", {"key": "absent"} if self.never_formed else raw_lease)
        self.key = self.lease_words.take("key", "present")
        self.moved = self._when(self.lease_words.take("moved"), 0.3)
        self.wait_s = self.lease_words.take("wait")
        self.index: int = self.lease_words.take("index", INDEX)
        self.locked_by = self.lease_words.take("locked_by", "default")
        self.record = self._record(self.lease_words)
        self.lease_words.close()

    # ------------------------------------------------------------------ small helps

    def _when(self, value: float | None, default_ago_s: float) -> Instant:
        return instant(self.at_s - default_ago_s if value is None else value)

    def _maybe(self, value: float | None) -> Instant | None:
        return None if value is None else instant(value)

    @property
    def session(self) -> str | None:
        return None if self._session == "none" else self._session

    # ------------------------------------------------------------------ the group and its record

    def _group(self, words: Words) -> GroupSpec:
        members = words.take("members", {"pg1": {"priority": 100}, "pg2": {"priority": 90}, "pg3": {"priority": 80}})
        spec = GroupSpec(
            name="pg-main",
            engine="postgres",
            members={name: Candidacy(**(c or {})) for name, c in members.items()},
            witnesses=tuple(words.take("witnesses", ())),
            terms=Terms(words.take("ttl", 5.0), words.take("fence_budget", 0.5)),
            renew_s=words.take("renew", 1.0),
            patience_s=words.take("patience", 10.0),
            durability=Durability(words.take("durability", "async")),
            max_lag_bytes=words.take("max_lag", 1000),
            on_crash=OnCrash(words.take("on_crash", "failover")),
            restart_timeout_s=words.take("restart_timeout", 10.0),
            sync_timeout_s=words.take("sync_timeout", 3.0),
            cooldown_s=60.0,
            hooks=frozenset(HookRole(role) for role in words.take("hooks", ())),
            failsafe=words.take("failsafe", default=False),
            required_fences=frozenset(FenceLayer(f) for f in words.take("fences", ("seal", "watchdog"))),
        )
        words.close()
        return spec

    def _record(self, words: Words) -> LeaseRecord:
        is_sync = self.group.durability is Durability.SYNC
        set_ = words.take("sync_set", ["pg2"] if is_sync else None)
        final, debt = words.take("final_position"), words.take("debt")
        voters = tuple(words.take("voters", self.group.voters))
        holder = words.take("holder", "pg1")
        return LeaseRecord(
            group="pg-main",
            holder=holder,
            incarnation=words.take("incarnation", f"boot-{holder}"),
            epoch=words.take("epoch", 7),
            sequence=words.take("sequence", 40),
            nonce=words.take("nonce", "n40"),
            terms=Terms(words.take("ttl", self.group.terms.ttl_s), words.take("fence_budget", self.group.terms.fence_budget_s)),
            state=LeaseState(words.take("state", "held")),
            voters=voters,
            votes_needed=words.take("votes_needed", votes_needed(len(voters))),
            sync_set=None if set_ is None else tuple(set_),
            promotions=tuple(Promotion(*p) for p in words.take("promotions", PROMOTIONS + ([RESERVED] if self.node == holder else []))),
            paused=words.take("paused", default=False),
            heir=words.take("heir"),
            final_position=None if final is None else Position(*final),
            debt=None if debt is None else Debt(debt[0], debt[1], debt[2]),
            system_identifier=words.take("system_identifier", SYSTEM),
            cause=words.take("cause", "the last failover"),
        )

    def _lease(self) -> LeaseView:
        if self.key == "absent":
            return LeaseView()
        session = (
            (None if self.record.state is LeaseState.VACATED else f"s-{self.record.holder}")
            if self.locked_by == "default"
            else self.locked_by
        )
        entry = Entry(encode_record(self.record), self.index, None if session == "none" else session)
        if self.key == "unreadable":
            return LeaseView(exists=True, entry=replace(entry, value=b"?"))
        wait_s = self.record.terms.takeover_wait_s
        sight = Sight(self.record.epoch, self.record.sequence, self.index, self.moved, wait_s, max(wait_s, self.wait_s or 0.0))
        return LeaseView(exists=True, record=self.record, entry=entry, sight=sight)

    def _tenure(self, raw: Any) -> Tenure | None:
        holds = self.record.holder == self.node and self.record.state is LeaseState.HELD and not self.never_formed
        if raw == "none" or (raw is None and not holds):
            return None
        words = Words("tenure", raw or {})
        adopted = words.take("adopted_deadline")
        sent = words.take("sent")
        confirmed = Words("tenure.record", words.take("record", {}))
        record = changed(self.record, confirmed)
        tenure = Tenure(
            record=record,
            index=words.take("index", self.index),
            session=words.take("session", f"s-{self.node}"),
            dated=None if sent == "unknown" else self._when(sent, 0.3),
            adopted_deadline=self._maybe(adopted),
            attempts=tuple(self._attempt(record, n, a) for n, a in enumerate(words.take("attempts", []), start=1)),
            began=self._when(words.take("began"), 100.0),
            promises=tuple((name, instant(asked)) for name, asked in words.take("promises", {}).items()),
            promised=self._maybe(words.take("promised")),
            asked=self._maybe(words.take("asked")),
        )
        words.close()
        return tenure

    def _promise(self, raw: Mapping[str, Any] | None) -> Promise | None:
        if raw is None:
            return None
        words = Words("promise", raw)
        epoch = words.take("epoch", self.record.epoch)
        wait_s = words.take("wait", self.group.terms.takeover_wait_s)
        promise = Promise(None if epoch == "any" else epoch, words.take("holder", "pg1"), wait_s, self._when(words.take("given"), 0.1))
        words.close()
        return promise

    def _attempt(self, record: LeaseRecord, number: int, raw: Any) -> Attempt:
        words = Words("attempt", raw)
        sent = self._when(words.take("sent"), 0.1)
        attempted = changed(replace(record, sequence=record.sequence + number, nonce=f"n{record.sequence + number}"), words)
        return Attempt(attempted, sent)

    # ------------------------------------------------------------------ this node

    def _service(self, words: Words, leads: bool) -> ServiceView:
        member = self.node in self.group.members
        default = "primary" if leads else "standby" if member and not self.never_formed else "unknown"
        state = ServiceState(words.take("state", default))
        alive = state in (ServiceState.PRIMARY, ServiceState.STANDBY)
        position = words.take("position", HERE if member else None)
        follows = state is ServiceState.STANDBY and not leads and self.record.holder != self.node and not self.never_formed
        upstream = words.take("upstream", self.record.holder if follows else None)
        set_ = list(self.record.sync_set or ())
        replicas = words.take("replicas", self._replicas(set_) if state is ServiceState.PRIMARY else [])
        seen = self._when(words.take("seen"), 0.05)
        view = ServiceView(
            state=state,
            seen=seen,
            since=self._when(words.take("since"), 100.0),
            sentence=words.take("sentence", ""),
            initialised=words.take("initialised", member),
            position=None if position is None or position == "none" else Position(*position),
            history=tuple(Branch(*b) for b in words.take("history", HISTORY if member else [])),
            system_identifier=words.take("system_identifier", SYSTEM if member else None),
            upstream=None if upstream == "none" else upstream,
            receiving=words.take("receiving", alive and follows and upstream not in (None, "none")),
            stopped_for_epoch=words.take("stopped_for_epoch"),
            sealed=words.take("sealed", member),
            sync_names=tuple(words.take("sync_names", set_ if state is ServiceState.PRIMARY else [])),
            sync_effective_lsn=words.take("sync_effective_lsn", 4000 if state is ServiceState.PRIMARY and set_ else None),
            replicas=tuple(replica(r, seen) for r in replicas),
            own_timelines=tuple((e, t) for e, t in words.take("own_timelines", [])),
        )
        words.close()
        return view

    def _replicas(self, set_: list[str]) -> list[dict[str, Any]]:
        return [{"name": n, "sync": n in set_} for n in self.group.members if n != self.node]

    def _fences(self, words: Words, tenure: Tenure | None) -> FenceView:
        armed = words.take("armed", "default")
        epoch = None if tenure is None or armed == "none" else tenure.epoch
        deadline = None if tenure is None or epoch is None else tenure.deadline
        if isinstance(armed, Mapping):
            epoch, deadline = armed["epoch"], instant(armed["deadline"])
        standing = frozenset(FenceLayer(f) for f in words.take("standing", [f.value for f in self.group.required_fences]))
        fences = FenceView(
            standing=standing,
            watchdog_alive=words.take("watchdog_alive", default=True),
            armed_epoch=epoch,
            armed_deadline=deadline,
            refused=words.take("refused", ""),
            suspended=words.take("suspended", self.record.paused and tenure is not None),
            kernel_epoch=words.take("kernel_epoch", epoch if FenceLayer.KERNEL in standing else None),
            kernel_problem=words.take("kernel_problem", ""),
        )
        words.close()
        return fences

    def _observation(self, raw: Any, leads: bool) -> Observation | None:
        if raw == "none" or (raw is None and (leads or self.never_formed or self.record.holder == self.node)):
            return None
        words = Words("observation", raw or {})
        writable = words.take("writable", default=True)
        seen = Observation(
            node=words.take("node", self.record.holder),
            writable=None if writable == "unknown" else writable,
            asked=self._when(words.take("asked"), 0.1),
            since=self._when(words.take("since"), 60.0),
            sentence=words.take("sentence", "it answers"),
        )
        words.close()
        return seen

    # ------------------------------------------------------------------ the others

    def _members(self, raw: Mapping[str, Any], service: ServiceView) -> dict[str, MemberView]:
        members = {}
        for name in self.group.voters:
            if raw.get(name) == "none" or (self.never_formed and name not in raw and name != self.node):
                continue
            members[name] = self._member(name, Words(f"members.{name}", raw.get(name, {})))
        members[self.node] = own_member(self.node, service, self.at_s, members.get(self.node))
        return members

    def _member(self, name: str, words: Words) -> MemberView:
        runs = name in self.group.members
        holds = name == self.record.holder
        up = "primary" if self.record.state is LeaseState.HELD else "down"
        state = ServiceState(words.take("state", (up if holds else "standby") if runs else "unknown"))
        follows = state is ServiceState.STANDBY and not holds
        position = words.take("position", HERE if runs else None)
        upstream = words.take("upstream", self.record.holder if follows else None)
        member = MemberView(
            name=name,
            moved=self._when(words.take("heard"), 0.2),
            incarnation=f"boot-{name}",
            state=state,
            position=None if position in (None, "none") else Position(*position),
            history=tuple(Branch(*b) for b in words.take("history", HISTORY if runs else [])),
            stopped_for_epoch=words.take("stopped_for_epoch"),
            upstream=None if upstream == "none" else upstream,
            receiving=words.take("receiving", upstream not in (None, "none")),
            system_identifier=words.take("system_identifier", SYSTEM if runs else None),
            problem=words.take("problem", ""),
            paused_epoch=self.record.epoch if self.record.paused else None,
        )
        words.close()
        return member

    def _votes(self, raw: Mapping[str, Any]) -> dict[str, VoteView]:
        votes = {}
        for number, (voter, said) in enumerate(raw.items()):
            words = Words(f"votes.{voter}", {"down": said == "down"} if isinstance(said, str) else said)
            votes[voter] = VoteView(
                voter, words.take("index", 700 + number), words.take("epoch", self.record.epoch), words.take("down", default=True), "seen"
            )
            words.close()
        return votes

    def _word_views(self, raw: Mapping[str, Any]) -> dict[str, WordView]:
        words = {}
        for number, (node, said) in enumerate(raw.items()):
            position = said.get("position", HERE)
            place = None if position == "none" else Position(*position)
            system = said.get("system_identifier", None if place is None else SYSTEM)
            words[node] = WordView(node, 600 + number, place, system, tuple(Branch(*b) for b in HISTORY))
        return words

    def _intents(self, raw: list[Mapping[str, Any]]) -> tuple[Intent, ...]:
        intents = []
        for number, said in enumerate(raw):
            words = Words("intent", said)
            intents.append(
                Intent(
                    identity=words.take("identity", f"i{number}"),
                    index=words.take("index", 800 + number),
                    kind=IntentKind(words.take("kind")),
                    node=words.take("to"),
                    epoch=words.take("epoch", self.record.epoch),
                    who="ada",
                    why="maintenance",
                    seen=self._when(words.take("seen"), 0.1),
                )
            )
            words.close()
        return tuple(intents)

    # ------------------------------------------------------------------ commands

    def command(self, name: str, said: Mapping[str, Any]) -> Command:
        """A command with plain values where the scenario says nothing."""
        kind: type[Command] = getattr(commands, name)
        plain: dict[str, Any] = {
            "epoch": self.record.epoch,
            "record": self.record,
            "words": (),
            "votes": (),
            "cause": "",
            "evidence": "",
            "over": Entry(b"", self.index),
            "relock_over": None,
            "down": True,
            "over_index": 0,
            "leader": self.record.holder,
            "mode": RejoinMode.REWIND,
            "sync_names": None,
            "known_promotions": (),
            "names": (),
            "identity": "i0",
            "index": 800,
            "outcome": IntentOutcome.DONE,
            "sentence": "",
            "role": HookRole(said.get("role", "elected")),
        }
        chosen = {f.name: plain[f.name] for f in fields(kind)}
        if "record" in said and "record" in chosen:
            chosen["record"] = changed(self.record, Words(f"{name}.record", said["record"]))
        for word in ("epoch", "cause", "leader", "down"):
            if word in said:
                chosen[word] = said[word]
        if "names" in said:
            chosen["names"] = tuple(said["names"])
        return kind(**chosen)

    def _routes(self, raw: list[Any]) -> tuple[RouteView, ...]:
        routes = []
        for said in raw:
            words = Words("routes", {"present": said == "present"} if isinstance(said, str) else said)
            present = words.take("present", default=False)
            asked = self._maybe(words.take("asked"))
            rival = words.take("rival", "")
            name = words.take("name", "vip 192.0.2.100")
            routes.append(RouteView(name, None if present == "unknown" else present, rival, asked))
            words.close()
        return tuple(routes)

    def _in_flight(self, raw: list[Any]) -> tuple[InFlight, ...]:
        named = [(item, {}) if isinstance(item, str) else next(iter(item.items())) for item in raw]
        return tuple(InFlight(self.command(name, said), self._when(said.get("since"), 0.1)) for name, said in named)

    def _outcomes(self, raw: Mapping[str, Any]) -> dict[str, Outcome]:
        outcomes = {}
        for name, said in raw.items():
            words = Words(f"outcomes.{name}", said)
            ok = words.take("ok", default=True)
            outcomes[name] = Outcome(
                command=self.command(name, words.take("command", {})),
                ok=ok,
                ended=self._when(words.take("ended"), 0.1),
                sentence="",
                failures=words.take("failures", 0 if ok else 1),
            )
            words.close()
        return outcomes

    # ------------------------------------------------------------------ all together

    def scene(self) -> Scene:
        """The view, and the moment of it."""
        take = self.given.take
        self._session = take("session", f"s-{self.node}")
        tenure = self._tenure(take("tenure"))
        leads = tenure is not None
        service = self._service(Words("service", take("service", {})), leads)
        answered = take("answered")
        told = take("told")
        view = View(
            node=self.node,
            incarnation=f"boot-{self.node}",
            group=self.group,
            coordination=CoordinationView(
                answered=None if answered == "never" else self._when(answered, 0.1),
                session=self.session,
                lags=take("lags", default=False),
                went_back=take("went_back", default=False),
            ),
            lease=self._lease(),
            tenure=tenure,
            service=service,
            fences=self._fences(Words("fences", take("fences", {})), tenure),
            observation=self._observation(take("observation"), leads),
            members=self._members(take("members", {}), service),
            votes=self._votes(take("votes", {})),
            words=self._word_views(take("words", {})),
            intents=self._intents(take("intents", [])),
            in_flight=self._in_flight(take("in_flight", [])),
            outcomes=self._outcomes(take("outcomes", {})),
            highest_epoch=take("highest_epoch", 0 if self.never_formed else self.record.epoch),
            undecided_takeover_index=take("undecided_takeover_index"),
            promise=self._promise(take("promise")),
            vote_is_uncertain=take("vote_is_uncertain", default=False),
            routes=self._routes(take("routes", [])),
            told=None if told is None else Told(told["epoch"], HookRole(told["role"])),
        )
        self.given.close()
        return Scene(view, instant(self.at_s))


def build(given: Mapping[str, Any], at_s: float = 0.0) -> Scene:
    """The scene of one step whose `given` is resolved."""
    return Builder(given, at_s).scene()


def scene(given: Mapping[str, Any] | None = None) -> Scene:
    """The scene of a test at second 0: `given` as it would stand in a scenario."""
    return build(resolve(given or {}, 0.0))


def memory(said: Mapping[str, Any]) -> Memory:
    """A memory in a scenario's words."""
    words = Words("memory", said)
    names = {f.name for f in fields(Memory)} - {"situation", "led_epoch"}
    times = {name: instant(words.take(name)) for name in sorted(names) if words.has(name)}
    made = Memory(situation=Situation(words.take("situation", "unformed")), **times)
    words.close()
    return made


def context(given: Mapping[str, Any] | None = None, at_s: float = 0.0, **remembered: float) -> Context:
    """The context of a test: `given` as it would stand in a scenario, and what the memory holds, as seconds since the start."""
    made = build(resolve(given or {}, at_s), at_s)
    return Context(made.view, memory(remembered), ENGINES[made.view.group.engine], made.now)
