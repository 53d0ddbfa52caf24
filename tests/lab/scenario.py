"""A scenario file as types: strict, with one line for each mistake. Pure but for reading the file.

Keys and their meaning are in the README. It is read by the same strict reader as quorate.yaml: durations have units, an unknown key is an
error with its line and the nearest known one, and a key given twice is refused.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

from agent.configuration.document import Problem, UnreadableDocument, dotted, read_document
from agent.configuration.model import Name
from agent.configuration.units import parse_duration_s
from agent.configuration.validation import Section as Place
from agent.configuration.validation import validate

CLIENT = "client"
GROUP = "main"
MOST_HOSTS = 9
TAIL_S = 10.0

Moment = Annotated[float, BeforeValidator(parse_duration_s), Field(ge=0)]
"""Seconds since the workload began, written with a unit."""


class BadScenario(Exception):
    """The file cannot be run; one line for each mistake."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Fault(StrEnum):
    """What a step does to the world."""

    KILL_SERVICE = "kill_service"
    KILL_AGENT = "kill_agent"
    FREEZE_AGENT = "freeze_agent"
    FREEZE_WATCHDOG = "freeze_watchdog"
    KILL_WATCHDOG = "kill_watchdog"
    HOST_DOWN = "host_down"
    HOST_UP = "host_up"
    PARTITION = "partition"
    CONSUL_LEADER_KILL = "consul_leader_kill"
    CONSUL_DOWN = "consul_down"
    CONSUL_UP = "consul_up"
    HEAL = "heal"


class Role(StrEnum):
    """Hosts by what they are when the step starts."""

    LEADER = "leader"
    STANDBY = "standby"
    WITNESS = "witness"
    CONSUL_LEADER = "consul_leader"
    CLIENT = "client"
    ALL = "all"


ROLES = frozenset(role.value for role in Role)
NEEDS_HOST = frozenset(
    (Fault.KILL_SERVICE, Fault.KILL_AGENT, Fault.FREEZE_AGENT, Fault.FREEZE_WATCHDOG, Fault.KILL_WATCHDOG, Fault.HOST_DOWN, Fault.HOST_UP)
)
MAY_HAVE_HOST = NEEDS_HOST | {Fault.CONSUL_DOWN, Fault.CONSUL_UP}
FENCES = frozenset((Fault.PARTITION, Fault.KILL_AGENT, Fault.FREEZE_AGENT, Fault.FREEZE_WATCHDOG, Fault.KILL_WATCHDOG))
"""Faults after which a leader that lives on may have to be fenced: `fenced_after_s` counts from the last of them."""
MAY_STAY = frozenset((Fault.KILL_AGENT, Fault.KILL_WATCHDOG))

Selector = str | tuple[str, ...]


class Part(BaseModel):
    """Unknown keys are errors, nothing changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class HostPart(Part):
    """One host."""

    witness: bool = False


class Start(Part):
    """Who begins."""

    leader: Name | None = None
    consul_leader: Name | None = None


class Workload(Part):
    """The writer."""

    every: Moment = 0.02
    through: Literal["vip", "leader"] | None = None


class Step(Part):
    """One fault or one command at one moment."""

    at: Moment
    fault: Fault | None = None
    command: str | None = None
    host: Selector | None = None
    a: Selector | None = None
    b: Selector | None = None
    stay: Literal["dead"] | None = None
    watchdog: bool = False

    @property
    def name(self) -> str:
        """For timeline and errors."""
        if self.fault is None:
            return f"quorate {self.command}"
        about = self.host if self.host is not None else None if self.a is None else f"{_words(self.a)} | {_words(self.b or ())}"
        return self.fault.value if about is None else f"{self.fault.value} {_words(about)}"


class Expect(Part):
    """What must be so for the run to be ok. What is not given is not asked."""

    outage_s_max: float | None = None
    outage_s_min: float | None = None
    outage_s_over_consul_max: float | None = None
    acknowledged_lost_max: int | None = None
    writable_overlap_s_max: float | None = None
    writable_locally_s_max: float | None = None
    fenced_after_s_max: float | None = None
    leader_changes: int | None = None
    leader_changes_max: int | None = None
    all_streaming: bool | None = None


class Scenario(Part):
    """The whole file."""

    about: str = ""
    hosts: Annotated[dict[Name, HostPart], Field(min_length=1, max_length=MOST_HOSTS)] = Field(
        default_factory=lambda: {name: HostPart() for name in ("h1", "h2", "h3")}
    )
    start: Start = Start()
    group: dict[str, JsonValue] = Field(default_factory=dict)
    workload: Workload = Workload()
    steps: tuple[Step, ...] = ()
    until: Moment | None = None
    expect: Expect = Expect()

    @property
    def members(self) -> tuple[str, ...]:
        return tuple(name for name, host in self.hosts.items() if not host.witness)

    @property
    def witnesses(self) -> tuple[str, ...]:
        return tuple(name for name, host in self.hosts.items() if host.witness)

    @property
    def ordered_steps(self) -> tuple[Step, ...]:
        return tuple(sorted(self.steps, key=lambda step: step.at))

    @property
    def until_s(self) -> float:
        """When it is over; 10 s after the last step unless the file says."""
        return self.until if self.until is not None else max((step.at for step in self.steps), default=0.0) + TAIL_S

    @property
    def through(self) -> Literal["vip", "leader"]:
        """The VIP where there is one, unless the file says."""
        return self.workload.through or ("vip" if "vip" in self.group else "leader")


def load(path: Path) -> Scenario:
    """The scenario in the file. Raises BadScenario with one line for each mistake."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadScenario((f"{path}: cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8 text'}",)) from None
    return parse(text, str(path))


def parse(text: str, source: str) -> Scenario:
    """The scenario in the text; `source` names it in messages."""
    try:
        document = read_document(text, {})
    except UnreadableDocument as error:
        raise BadScenario((f"{source}:{error.line}: {error.sentence}",)) from None
    valid = validate(Scenario, document.values, Place(document.spots))
    problems: list[Problem] = [*document.problems, *valid.problems]
    if valid.model is not None and not problems:
        problems = _judge(valid.model)
    if valid.model is None or problems:
        lines = tuple(f"{source}:{p.line or document.line(p.path)}: {dotted(p.path)}: {p.sentence}" for p in problems)
        raise BadScenario(lines or (f"{source}: holds no scenario",))
    return valid.model


def _judge(scenario: Scenario) -> list[Problem]:
    """What no single key can tell."""
    found: list[Problem] = []
    if not scenario.members:
        found.append(Problem(("hosts",), "at least one host must run Postgres"))
    found += [Problem(("hosts", name), "the lab has a meaning of its own for this name") for name in scenario.hosts if name in ROLES]
    if scenario.start.leader is not None and scenario.start.leader not in scenario.members:
        found.append(Problem(("start", "leader"), f"expected a host that runs Postgres: {', '.join(scenario.members)}"))
    if scenario.start.consul_leader is not None and scenario.start.consul_leader not in scenario.hosts:
        found.append(Problem(("start", "consul_leader"), f"expected a host: {', '.join(scenario.hosts)}"))
    if scenario.workload.through == "vip" and "vip" not in scenario.group:
        found.append(Problem(("workload", "through"), "there is no vip in `group`"))
    if scenario.workload.every <= 0:
        found.append(Problem(("workload", "every"), "expected more than 0s"))
    for number, step in enumerate(scenario.steps):
        found += [Problem(("steps", number, *path), sentence) for path, sentence in _judge_step(step, scenario)]
    if scenario.until is not None and any(step.at >= scenario.until for step in scenario.steps):
        found.append(Problem(("until",), "expected a time after the last step"))
    return found


def _judge_step(step: Step, scenario: Scenario) -> list[tuple[tuple[str, ...], str]]:
    found: list[tuple[tuple[str, ...], str]] = []
    if (step.fault is None) == (step.command is None):
        found.append(((), "expected exactly one of `fault` and `command`"))
    if step.command is not None and not step.command.split():
        found.append((("command",), "expected the words after `quorate`"))
    if step.fault in NEEDS_HOST and step.host is None:
        found.append(((), f"{step.fault} needs a `host`"))
    if step.fault is not None and step.fault not in MAY_HAVE_HOST and step.host is not None:
        found.append((("host",), f"{step.fault} takes no `host`"))
    if (step.a is not None or step.b is not None) != (step.fault is Fault.PARTITION) or (step.a is None) != (step.b is None):
        found.append(((), "`partition`, and nothing else, needs `a` and `b`"))
    if step.stay is not None and step.fault not in MAY_STAY:
        found.append((("stay",), "only kill_agent and kill_watchdog may `stay: dead`"))
    if step.watchdog and step.fault is not Fault.FREEZE_AGENT:
        found.append((("watchdog",), "only freeze_agent takes `watchdog`"))
    for key in ("host", "a", "b"):
        found += [((key,), sentence) for sentence in _judge_selector(getattr(step, key), scenario)]
    return found


def _judge_selector(selector: Selector | None, scenario: Scenario) -> list[str]:
    known = scenario.hosts.keys() | ROLES
    wrong = [name for name in names_of(selector) if name not in known]
    found = [f"{name}: no such host; expected one of {', '.join((*scenario.hosts, *sorted(ROLES)))}" for name in wrong]
    if Role.WITNESS in names_of(selector) and not scenario.witnesses:
        found.append("witness: this scenario has none")
    return found


def names_of(selector: Selector | None) -> tuple[str, ...]:
    """A selector's words."""
    if selector is None:
        return ()
    return (selector,) if isinstance(selector, str) else tuple(selector)


def _words(selector: Selector) -> str:
    return ", ".join(names_of(selector))
