import pytest

import checks.loading
from agent.configuration import check_kinds
from agent.configuration.check_kinds import judge_options, options_of
from agent.configuration.model import CheckEntry
from agent.errors import ConfigurationError
from checks.loading import KindUnavailable, load_kind


def test_the_options_are_those_of_the_kind() -> None:
    options = options_of(CheckEntry.model_validate({"type": "tcp", "address": "127.0.0.1:80"}))
    assert type(options) is load_kind("tcp").options_model


def test_wrong_options_are_sentences() -> None:
    with pytest.raises(ConfigurationError, match="tcp: unknown key"):
        options_of(CheckEntry.model_validate({"type": "tcp", "address": "127.0.0.1:80", "adres": "x"}))


def test_a_kind_whose_library_is_missing_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable(kind: str) -> None:
        raise KindUnavailable(f"checks of type '{kind}' cannot be used: the Python package redis is not installed")

    monkeypatch.setattr(check_kinds, "loaded_kind", unavailable)
    options, problems = judge_options("cache", CheckEntry(type="tcp"), {})
    assert options is None
    assert [problem.sentence for problem in problems] == ["checks of type 'tcp' cannot be used: the Python package redis is not installed"]
    assert checks.loading.known_kinds()
