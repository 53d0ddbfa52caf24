from __future__ import annotations

import pytest
from pydantic import ValidationError

from checks.http import HttpOptions


@pytest.mark.parametrize(
    ("given", "kept"), [(200, ("200",)), ("2XX", ("2xx",)), ([200, "3xx"], ("200", "3xx"))], ids=["one code", "one class", "a list"]
)
def test_expected_codes_may_be_one_or_many(given: object, kept: tuple[str, ...]) -> None:
    assert HttpOptions.model_validate({"url": "http://x/", "expect_status": given}).expect_status == kept


@pytest.mark.parametrize("given", [[], 20, "2x", "700", ["ok"], {"a": 1}])
def test_other_codes_are_refused(given: object) -> None:
    with pytest.raises(ValidationError, match="such as 200 or 2xx"):
        HttpOptions.model_validate({"url": "http://x/", "expect_status": given})


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:80", "ftp://x/", "http:///health", "http://me:secret@x/", "http://x:99999/", "http://[::1/"]
)
def test_other_addresses_are_refused_without_repeating_a_secret(url: str) -> None:
    with pytest.raises(ValidationError) as caught:
        HttpOptions.model_validate({"url": url})
    assert "secret" not in str(caught.value.errors(include_input=False)[0]["msg"])


@pytest.mark.parametrize("headers", [{"A b": "x"}, {"A": "x\r\nB: y"}, {"": "x"}])
def test_a_header_cannot_carry_another_one(headers: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="Name: text"):
        HttpOptions.model_validate({"url": "http://x/", "headers": headers})


def test_headers_are_secrets() -> None:
    options = HttpOptions.model_validate({"url": "http://x/", "headers": {"Authorization": "Bearer secret"}})
    assert "secret" not in repr(options)
    assert "secret" not in options.model_dump_json()
