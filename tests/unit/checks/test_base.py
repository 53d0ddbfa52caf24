from __future__ import annotations

import pytest
from pydantic import ValidationError

from checks.base import CheckOptions, RunLog


def test_the_log_of_a_run_is_bounded() -> None:
    log = RunLog(limit=3)
    for number in range(10):
        log.add(str(number))
    assert log.lines == ["0", "1", "2"]


def test_options_refuse_what_they_do_not_know() -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        CheckOptions.model_validate({"adress": "x"})
