import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest

from actions.base import ActionError
from actions.postgres_session import PostgresSession
from actions.postgres_settings import CHECKPOINTER_IDLE, Standing, change_settings, checkpointer_has_taken, read_standing
from tests.polling import eventually
from tests.unit.actions.examples import instance


class Answers:
    """A session that answers from a table: what a process of a real server does cannot be made to wait at will."""

    def __init__(self, **answers: object) -> None:
        self.answers = answers
        self.asked: list[str] = []

    async def rows(self, query: object, _parameters: Sequence[object] = (), **_: object) -> list[tuple[object, ...]]:
        self.asked.append(str(query))
        for sign, answer in self.answers.items():
            if sign in str(query):
                found = answer() if callable(answer) else answer
                return [cast("tuple[object, ...]", found)]
        return []

    def as_session(self) -> PostgresSession:
        return cast("PostgresSession", self)


def test_the_greater_of_received_and_replayed_is_the_position() -> None:
    assert Standing(in_recovery=True, received_lsn=5, replayed_lsn=7).position_lsn == 7
    assert Standing(in_recovery=True, received_lsn=9, replayed_lsn=7).position_lsn == 9


async def test_what_a_standby_does_not_know_yet_is_zero() -> None:
    answers = Answers(pg_is_in_recovery=(True, None, "0/10"))
    assert await read_standing(answers.as_session()) == Standing(in_recovery=True, received_lsn=0, replayed_lsn=16)


async def test_a_setting_that_does_not_come_through_is_named(tmp_path: Path) -> None:
    (tmp_path / "postgresql.auto.conf").write_text("primary_slot_name = 'x'\n")
    answers = Answers(current_setting=("theirs",))
    with pytest.raises(ActionError, match="primary_slot_name is set elsewhere"):
        await change_settings(instance(data_dir=tmp_path), answers.as_session(), {"primary_slot_name": "ours"})


async def test_what_stands_already_is_not_written_again(tmp_path: Path) -> None:
    (tmp_path / "postgresql.auto.conf").write_text("primary_slot_name = 'x'\n")
    answers = Answers(current_setting=("x",))
    await change_settings(instance(data_dir=tmp_path), answers.as_session(), {"primary_slot_name": "x"})
    assert not any("ALTER" in asked for asked in answers.asked)
    assert any("pg_reload_conf" in asked for asked in answers.asked)


async def test_the_checkpointer_is_asked_itself_and_waited_for_until_it_idles(tmp_path: Path) -> None:
    """While it is busy (an fsync that takes seconds), nothing is called taken; only asleep in its main loop it has read the settings."""
    script = f"trap 'echo hup >> {tmp_path}/hups' HUP; touch {tmp_path}/ready; while :; do sleep 0.05; done"
    child = subprocess.Popen(["/bin/sh", "-c", script], cwd=tmp_path)  # noqa: ASYNC220
    asked = 0

    def where() -> tuple[int, str]:
        nonlocal asked
        asked += 1
        return child.pid, "DataFileSync" if asked < 8 else CHECKPOINTER_IDLE[0]

    try:
        eventually((tmp_path / "ready").exists)
        await checkpointer_has_taken(instance(data_dir=tmp_path), Answers(pg_stat_activity=where).as_session())
        assert asked >= 8
        eventually((tmp_path / "hups").exists)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
