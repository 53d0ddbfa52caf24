from pathlib import Path

import pytest

from actions.base import ActionError, Guard
from actions.postgres_instance import sync_setting
from actions.postgres_promotion import NOBODY, KnownPromotion, Promote, SetSyncNames
from actions.postgres_session import PostgresSession
from tests.unit.actions.examples import instance


async def no_step(_: str) -> None:
    raise AssertionError("nothing is begun")


def test_nobody_can_be_called_nobody() -> None:
    assert " " in NOBODY
    assert NOBODY in sync_setting((NOBODY, "b"))


def test_the_highest_known_number_counts() -> None:
    known = (KnownPromotion(3, "b", 4, 2, 1), (2, "a", 7, 1, 1))
    made = Promote(instance(), PostgresSession(instance()), lambda *_: None, sync_names=None, known_promotions=known)
    assert made._highest == 7


async def test_what_is_down_is_not_promoted(tmp_path: Path) -> None:
    made = instance(data_dir=tmp_path)
    action = Promote(made, PostgresSession(made), lambda *_: None, sync_names=None)
    with pytest.raises(ActionError, match="nothing to promote"):
        await action.apply(Guard(permit=lambda: None, step=no_step))


async def test_names_of_what_is_down_cannot_be_set(tmp_path: Path) -> None:
    made = instance(socket_dir=tmp_path)
    with pytest.raises(ActionError, match="takes no connection"):
        await SetSyncNames(made, PostgresSession(made), ("b",)).apply(Guard(permit=lambda: None, step=no_step))
