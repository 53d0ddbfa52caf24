"""Random pictures of a group, in the words of a scenario: also such as no agent would ever see. For properties that hold for any view."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from agent.decision.memory import Memory
from tests.scenarios.building import Scene, build, memory
from tests.scenarios.reading import load_all
from tests.scenarios.words import Moment, merge

STEPS = [step for scenario in load_all() for step in scenario.steps]

NODES = ["pg1", "pg2", "pg3"]
STATES = ["down", "starting", "standby", "primary", "crashed", "hung", "unknown"]
EPOCHS = [6, 7, 8]

AGES_S = st.one_of(
    st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.9, 1.0, 1.1, 2.4, 2.5, 2.9, 3.0, 3.1, 4.5, 5.0, 5.6, 5.7, 5.9, 6.2, 9.9, 10.1, 59.5, 100.0]),
    st.floats(0, 12, allow_nan=False).map(lambda s: round(s, 3)),
)
AGO = AGES_S.map(lambda s: Moment(-s))
AHEAD = st.sampled_from([-1.0, -0.2, 0.2, 0.45, 0.6, 1.5, 4.0]).map(Moment)
PLACES = st.sampled_from([[1, 900], [2, 2000], [2, 3500], [3, 4000], [3, 5000], [3, 9000], [4, 5000], "none"])


def some(**words: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A mapping with any of these words."""
    return st.fixed_dictionaries({}, optional=words)


OUTCOME = some(ok=st.booleans(), ended=AGO, failures=st.integers(0, 6))
COMMANDS = [
    *("RenewLease", "TakeLease", "VacateLease", "FormGroup", "CastVote", "GiveWord", "FenceService", "StopService", "StartService"),
    *("StopReceiving", "FollowLeader", "RejoinService", "PromoteService", "SealService", "SetSyncNames", "FinishIntent"),
    "AskPromises",
    *("RaiseRoutes", "DropRoutes", "ProbeRoutes", "RunHooks"),
]
REPLICAS = st.lists(
    some(
        streaming=st.booleans(), flushed=st.sampled_from([3500, 5000]), sync=st.booleans(), heard=st.one_of(AGO, st.just("never"))
    ).flatmap(lambda r: st.sampled_from(NODES).map(lambda n: {"name": n, **r})),
    max_size=2,
)

GROUP = some(
    durability=st.sampled_from(["async", "sync"]),
    on_crash=st.sampled_from(["failover", "restart"]),
    witnesses=st.just(["edge1"]),
    members=st.sampled_from([{"pg1": {}, "pg2": {}}, {"pg1": {"priority": 0}, "pg2": {}, "pg3": {"nofailover": True}}, {"pg1": {}}]),
    hooks=st.sampled_from([["elected"], ["elected", "defeated"]]),
    fences=st.sampled_from([[], ["watchdog"], ["seal", "watchdog", "kernel"]]),
    ttl=st.sampled_from([1.0, 0.5, 5.0]),
    failsafe=st.booleans(),
)
LEASE = st.one_of(
    st.just("none"),
    some(
        key=st.sampled_from(["present", "absent", "unreadable"]),
        holder=st.sampled_from([*NODES, "stranger"]),
        state=st.sampled_from(["held", "vacated"]),
        moved=AGO,
        wait=st.sampled_from([1.0, 7.0]),
        paused=st.booleans(),
        sync_set=st.sampled_from([[], ["pg2"], ["pg3"], None]),
        heir=st.sampled_from([None, "pg2", "pg3"]),
        final_position=st.sampled_from([None, [3, 5000], [3, 7000]]),
        debt=st.sampled_from([None, [6, "pg3", 4.0]]),
        locked_by=st.sampled_from(["none", "s-other"]),
        promotions=st.sampled_from([[], [[7, "pg2", 3, 2, 3000]], [[5, "pg1", 2, 1, 1000], [7, "pg1", 3, 2, 3000]]]),
    ),
)
TENURE = st.one_of(
    st.just("none"),
    some(
        sent=st.one_of(AGO, st.just("unknown")),
        began=AGO,
        adopted_deadline=AHEAD,
        promised=AGO,
        asked=AGO,
        index=st.just(0),
        attempts=st.lists(
            some(sent=AGO, state=st.sampled_from(["held", "vacated"]), sync_set=st.sampled_from([[], ["pg2"]]), paused=st.booleans()),
            max_size=2,
        ),
        record=some(debt=st.just([6, "pg3", 4.0]), paused=st.booleans(), sync_set=st.sampled_from([[], ["pg2"]])),
    ),
)
SERVICE = some(
    state=st.sampled_from(STATES),
    since=AGO,
    initialised=st.booleans(),
    position=PLACES,
    history=st.sampled_from([[], [[1, 1000]], [[1, 1000], [2, 2500]]]),
    upstream=st.sampled_from(["pg1", "pg3", "none"]),
    receiving=st.booleans(),
    stopped_for_epoch=st.sampled_from([6, 7]),
    sealed=st.booleans(),
    sync_names=st.sampled_from([[], ["pg2"], ["pg3"]]),
    sync_effective_lsn=st.sampled_from([None, 4000]),
    replicas=REPLICAS,
    own_timelines=st.just([[6, 3]]),
)
MEMBER = st.one_of(
    st.just("none"),
    some(
        state=st.sampled_from(STATES),
        position=PLACES,
        heard=AGO,
        stopped_for_epoch=st.sampled_from([6, 7]),
        system_identifier=st.just("other"),
        problem=st.just("its disk is full"),
    ),
)
FENCES = some(
    standing=st.sampled_from([[], ["seal", "watchdog"]]),
    watchdog_alive=st.booleans(),
    suspended=st.booleans(),
    armed=st.one_of(st.just("none"), st.fixed_dictionaries({"epoch": st.sampled_from(EPOCHS), "deadline": AHEAD})),
)
VOTE = some(down=st.booleans(), epoch=st.sampled_from(EPOCHS))
INTENT = st.fixed_dictionaries(
    {"kind": st.sampled_from(["switchover", "pause", "resume"])},
    optional={"to": st.sampled_from(NODES), "epoch": st.sampled_from(EPOCHS), "seen": AGO, "index": st.integers(1, 9)},
)

WORDS: dict[str, st.SearchStrategy[Any]] = {
    "node": st.sampled_from([*NODES, "edge1"]),
    "group": GROUP,
    "lease": LEASE,
    "tenure": TENURE,
    "service": SERVICE,
    "members": st.dictionaries(st.sampled_from([*NODES, "edge1"]), MEMBER, max_size=3),
    "fences": FENCES,
    "votes": st.dictionaries(st.sampled_from([*NODES, "edge1"]), VOTE, max_size=3),
    "words": st.dictionaries(st.sampled_from(NODES), some(position=PLACES), max_size=3),
    "intents": st.lists(INTENT, max_size=3),
    "observation": st.one_of(st.just("none"), some(writable=st.sampled_from([True, False, "unknown"]), asked=AGO, since=AGO)),
    "in_flight": st.lists(st.sampled_from(COMMANDS), max_size=2),
    "outcomes": st.dictionaries(st.sampled_from(COMMANDS), OUTCOME, max_size=3),
    "routes": st.lists(
        some(present=st.sampled_from([True, False, "unknown"]), rival=st.sampled_from(["", "02:00:00:00:00:02"]), asked=AGO), max_size=1
    ),
    "told": st.fixed_dictionaries({"epoch": st.sampled_from(EPOCHS), "role": st.sampled_from(["elected", "defeated"])}),
    "promise": some(epoch=st.sampled_from([*EPOCHS, "any"]), given=AGO, wait=st.sampled_from([1.0, 7.0])),
    "vote_is_uncertain": st.booleans(),
    "answered": st.one_of(AGO, st.just("never")),
    "session": st.just("none"),
    "lags": st.booleans(),
    "went_back": st.booleans(),
    "highest_epoch": st.sampled_from([0, 6, 7, 8]),
}
MEMORY = some(
    situation_since=AGO,
    sync_missing_since=AGO,
    unwritable_since=AGO,
    vacancy_since=AGO,
    situation=st.sampled_from(["leading", "crashed", "promoting", "vacant"]),
)


def _shifted(raw: Any, by_s: float) -> Any:
    """The same with every moment later by so much: the words of now, said at another second."""
    if isinstance(raw, Moment):
        return Moment(raw + by_s)
    if isinstance(raw, Mapping):
        return {key: _shifted(value, by_s) for key, value in raw.items()}
    return [_shifted(value, by_s) for value in raw] if isinstance(raw, list) else raw


@st.composite
def scenes(draw: st.DrawFn) -> tuple[Scene, Memory]:
    """A step of a real scenario with up to four things said otherwise, and a memory."""
    step = draw(st.sampled_from(STEPS))
    given = dict(step.given)
    for word in draw(st.lists(st.sampled_from(sorted(WORDS)), max_size=4, unique=True)):
        said = {word: _shifted(draw(WORDS[word]), step.at_s)}
        given = merge(given, said) if draw(st.booleans()) else {**given, **said}
    return build(given, step.at_s), memory(_shifted(draw(MEMORY), step.at_s))
