import pytest

from agent.configuration.model import Configuration
from agent.configuration.wording import known_keys, nearest, quoted, sentence_of, unknown_key


def test_the_known_keys_are_found_through_names_lists_and_choices() -> None:
    assert known_keys(Configuration, ()) == ("api", "checks", "coordination", "defaults", "groups", "nodes", "state_dir")
    assert known_keys(Configuration, ("nodes", "any")) == ("address", "api", "site")
    assert known_keys(Configuration, ("groups", "any", "members", "any")) == ("nofailover", "priority")
    assert known_keys(Configuration, ("coordination", "local")) == ("path",)
    assert known_keys(Configuration, ("groups", "any", "witnesses", 0)) == ()
    assert known_keys(Configuration, ("nowhere", "x")) == ()


def test_the_nearest_name_does_not_mind_case_or_dashes() -> None:
    assert nearest("Data-Dir", ("data_dir", "port")) == " (did you mean data_dir?)"
    assert nearest("xyz", ("data_dir", "port")) == ""


@pytest.mark.parametrize("path", [("password",), ("admin", "password"), ("token",), ("dsn",), ("headers", "X-Any"), ("api_key",)])
def test_what_may_be_a_secret_is_not_quoted(path: tuple[str, ...]) -> None:
    assert quoted(path, "hunter2") == ""


@pytest.mark.parametrize("written", [None, "", "x" * 41, "two\nlines", "https://user:hunter2@host", "password=hunter2", "ü"])
def test_only_short_plain_words_are_quoted(written: str | None) -> None:
    assert quoted(("ttl",), written) == ""
    assert quoted(("ttl",), "5 s") == ", not '5 s'"
    assert quoted(("password_file",), "relative") == ", not 'relative'"


def test_few_known_keys_are_listed_when_none_is_near() -> None:
    assert unknown_key(("a", "zzz"), ("one", "two")) == "unknown key; known here: one, two"
    assert unknown_key(("a", "zzz"), [f"key{number}" for number in range(13)]) == "unknown key"


@pytest.mark.parametrize("path", [("alerts",), ("notify",), ("groups", "any", "follows_leader", 0, "dns")])
def test_keys_of_the_plan_are_told_apart_from_typing_errors(path: tuple[str, ...]) -> None:
    assert unknown_key(path, ("api",)) == "is not available in this version of quorate"


def test_a_validators_sentence_is_shown_unless_it_repeats_the_value() -> None:
    loc = ("checks", "pg", "dsn")

    def said(message: str) -> str:
        fault = {"type": "value_error", "loc": loc, "msg": "", "input": None, "ctx": {"error": ValueError(message)}}
        return sentence_of(fault, loc, "host=db password=hunter2", "host=db password=hunter2", ())  # type: ignore[arg-type]

    assert said("expected one host,\n not  several") == "expected one host, not several"
    assert said("cannot read hunter2") == "is not valid"


def test_an_error_of_a_kind_nobody_thought_of_is_still_a_sentence() -> None:
    fault = {"type": "url_parsing", "loc": ("url",), "msg": "Input should be a valid URL, relative URL without a base", "input": None}
    assert sentence_of(fault, ("url",), "x", "x", ()) == "expected a valid URL, relative URL without a base, not 'x'"  # type: ignore[arg-type]


def test_a_name_that_is_not_plain_is_never_proposed() -> None:
    assert nearest("edge1", ["\ud7fcedge1"]) == ""
    assert nearest("edge2", ["\ud7fcedge1", "edge1"]) == " (did you mean edge1?)"
