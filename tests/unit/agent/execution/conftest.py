"""One node's hands, for the tests of what works with them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.unit.agent.stage import Stage, staged


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with staged() as one:
        yield one
