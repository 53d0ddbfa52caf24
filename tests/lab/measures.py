"""From what the client and the observer wrote down to the figures of a run. Pure: text and values in, numbers out.

Times are CLOCK_BOOTTIME in nanoseconds until they become a figure in seconds. The definitions are those of the README; where a question and
its answer lie apart, a member counts as writable only for the time that is proven: from the answer to the first write that it took to the
question of the last one before it refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

LATE_NS = 100_000_000
"""A round of samples that begins later than this was blind."""
LOCAL_SLACK_NS = 150_000_000
"""Both samplers ask at intervals; what they disagree about for less than this is no difference."""


@dataclass(frozen=True)
class Acknowledged:
    """One row whose commit was answered without error and warning."""

    identity: int
    sent_ns: int
    at_ns: int


@dataclass(frozen=True)
class Span:
    """A time in which a member took every write it was asked for."""

    first_sent_ns: int
    first_answered_ns: int
    last_sent_ns: int
    last_answered_ns: int

    @property
    def proven(self) -> tuple[int, int]:
        """Surely writable all that time; for a single write the time in which it happened."""
        if self.last_sent_ns > self.first_answered_ns:
            return self.first_answered_ns, self.last_sent_ns
        return self.first_sent_ns, self.last_answered_ns


@dataclass(frozen=True)
class Samples:
    """What a sampler saw. `late`: by how much each late round began late, and when."""

    spans: Mapping[str, Sequence[Span]]
    late: Sequence[tuple[int, int]] = ()


@dataclass(frozen=True)
class Holder:
    """The lease as it stood from `at_ns` on."""

    at_ns: int
    epoch: int
    name: str
    state: str


@dataclass
class _Run:
    spans: list[Span] = field(default_factory=list)
    is_open: bool = False

    def took(self, sent_ns: int, answered_ns: int) -> None:
        if self.is_open:
            first = self.spans[-1]
            self.spans[-1] = Span(first.first_sent_ns, first.first_answered_ns, sent_ns, answered_ns)
        else:
            self.spans.append(Span(sent_ns, answered_ns, sent_ns, answered_ns))
            self.is_open = True


def read_ledger(text: str) -> list[Acknowledged]:
    """The ledger's rows; a last line that was cut short is no row."""
    rows = [line.split() for line in _whole_lines(text)]
    return [Acknowledged(int(identity), int(sent), int(at)) for identity, sent, at in rows]


def read_samples(text: str) -> Samples:
    """What a sampler wrote."""
    runs: dict[str, _Run] = {}
    late: list[tuple[int, int]] = []
    for line in _whole_lines(text):
        match line.split():
            case ["took", name, sent, answered]:
                runs.setdefault(name, _Run()).took(int(sent), int(answered))
            case ["ended", name, _]:
                runs[name].is_open = False
            case ["late", by_ns, at_ns]:
                late.append((int(by_ns), int(at_ns)))
    return Samples({name: run.spans for name, run in runs.items()}, late)


def _whole_lines(text: str) -> list[str]:
    return text[: text.rfind("\n") + 1].splitlines()


def outage_s(ledger: Sequence[Acknowledged], first_fault_ns: int, end_ns: int) -> float:
    """The longest time between two acknowledged writes in a row after the first fault; one still open at the end counts as it stands."""
    times = [row.at_ns for row in ledger]
    before = max((at for at in times if at <= first_fault_ns), default=first_fault_ns)
    after = sorted(at for at in times if first_fault_ns < at <= end_ns)
    marks = [before, *after, end_ns]
    return max(later - earlier for earlier, later in pairwise(marks)) / 1e9


def lost(ledger: Iterable[Acknowledged], present: frozenset[int]) -> list[int]:
    """Acknowledged rows that the last primary does not have."""
    return sorted(row.identity for row in ledger if row.identity not in present)


def overlap_s(samples: Samples) -> float:
    """Seconds in which two members took writes; each pair's time counts."""
    names = sorted(samples.spans)
    total_ns = 0
    for number, one in enumerate(names):
        for other in names[number + 1 :]:
            for a in samples.spans[one]:
                for b in samples.spans[other]:
                    (a_from, a_to), (b_from, b_to) = a.proven, b.proven
                    total_ns += max(0, min(a_to, b_to) - max(a_from, b_from))
    return total_ns / 1e9


def blind_s(samples: Samples) -> float:
    """Seconds by which rounds that began too late were late."""
    return sum(by_ns for by_ns, _ in samples.late if by_ns > LATE_NS) / 1e9


def writable_locally_s(network: Samples, local: Samples, from_ns: int, end_ns: int) -> float:
    """Seconds between the two in which a member took writes over its local socket and not over the network."""
    total_ns = 0
    for name, spans in local.spans.items():
        seen = [(a - LOCAL_SLACK_NS, b + LOCAL_SLACK_NS) for a, b in (span.proven for span in network.spans.get(name, ()))]
        for begin, end in (span.proven for span in spans):
            total_ns += sum(b - a for a, b in _without([(max(begin, from_ns), min(end, end_ns))], seen))
    return total_ns / 1e9


def _without(parts: list[tuple[int, int]], holes: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    for low, high in holes:
        cut = [(a, min(b, low)) for a, b in parts] + [(max(a, high), b) for a, b in parts]
        parts = [(a, b) for a, b in cut if b > a]
    return [(a, b) for a, b in parts if b > a]


def fenced_after_s(samples: Samples, member: str, from_ns: int, end_ns: int) -> float | None:
    """How long after `from_ns` this member, writable then, went on taking writes over the network; None: until the end."""
    for span in samples.spans.get(member, ()):
        if span.first_sent_ns <= from_ns <= span.last_answered_ns:
            return None if span.last_answered_ns > end_ns - LOCAL_SLACK_NS else (span.last_answered_ns - from_ns) / 1e9
    return 0.0


def leader_changes(history: Sequence[Holder]) -> int:
    """Holders after the first: a holder that takes its own lease anew is the same one."""
    names = [holder.name for holder in history]
    return sum(1 for earlier, later in pairwise(names) if earlier != later)


def longest_without_s(changes: Sequence[tuple[int, bool]], from_ns: int, end_ns: int) -> float:
    """The longest time after `from_ns` in which something was not so. `changes`: when it became so or not so, in order."""
    worst_ns, since = 0, from_ns if not _was(changes, from_ns) else None
    for at_ns, is_so in changes:
        if at_ns <= from_ns:
            continue
        if not is_so and since is None:
            since = at_ns
        elif is_so and since is not None:
            worst_ns, since = max(worst_ns, at_ns - since), None
    if since is not None:
        worst_ns = max(worst_ns, end_ns - since)
    return worst_ns / 1e9


def _was(changes: Sequence[tuple[int, bool]], at_ns: int) -> bool:
    before = [is_so for when, is_so in changes if when <= at_ns]
    return bool(before) and before[-1]
