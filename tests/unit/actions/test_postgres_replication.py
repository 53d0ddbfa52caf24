import pytest

from actions.postgres_instance import Upstream
from actions.postgres_replication import FinalPosition, UpstreamFacts, why_not_a_descendant

N2 = Upstream("n2", "192.0.2.12", 5432)


def facts(timeline: int, *history: tuple[int, int]) -> UpstreamFacts:
    return UpstreamFacts("1", timeline, 0x9000, history, "")


@pytest.mark.parametrize(
    ("own", "upstream", "sentence"),
    [
        (FinalPosition(1, 0x5000), facts(1), ""),
        (FinalPosition(1, 0xFFFFF), facts(1), ""),  # a standby upstream may be behind for a while
        (FinalPosition(1, 0x5000), facts(2, (1, 0x5000)), ""),
        (FinalPosition(1, 0x5001), facts(2, (1, 0x5000)), "n2 left timeline 1 at 0/5000, this one went on to 0/5001: it has to rewind"),
        (FinalPosition(2, 0x5000), facts(3, (1, 0x4000)), "the own timeline 2 is no ancestor of timeline 3 of n2: it has to rejoin"),
        (FinalPosition(3, 0x5000), facts(2), "n2 is on timeline 2, older than the own timeline 3"),
    ],
)
def test_why_one_cannot_stream_from_the_other(own: FinalPosition, upstream: UpstreamFacts, sentence: str) -> None:
    assert why_not_a_descendant(own, N2, upstream) == sentence
