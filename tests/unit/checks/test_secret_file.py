from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from checks.network import ProbeFailed, Reason
from checks.secret_file import SECRET_LIMIT_BYTES, at_most_one, read_secret, secret_of


@pytest.mark.parametrize(
    ("content", "secret"), [("hunter2", "hunter2"), ("hunter2\r\nmore\n", "hunter2"), (" a b \n", " a b "), ("ä\n", "ä")]
)
def test_the_first_line_is_the_secret(tmp_path: Path, content: str, secret: str) -> None:
    (tmp_path / "s").write_bytes(content.encode())
    assert read_secret("token_file", tmp_path / "s").get_secret_value() == secret


@pytest.mark.parametrize(
    ("content", "words"), [(None, "No such file"), (b"", "is empty"), (b"\nhunter2\n", "is empty"), (b"\xff\xfe", "it is no text")]
)
def test_what_cannot_be_read_is_our_fault_and_names_the_option(tmp_path: Path, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / "s").write_bytes(content)
    with pytest.raises(ProbeFailed, match=words) as caught:
        read_secret("token_file", tmp_path / "s")
    assert caught.value.failure.reason is Reason.LOCAL
    assert caught.value.failure.sentence.startswith(f"token_file: {tmp_path / 's'}")


def test_an_endless_line_is_read_only_so_far(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("x" * 10 * SECRET_LIMIT_BYTES, encoding="utf-8")
    assert len(read_secret("token_file", tmp_path / "s").get_secret_value()) == SECRET_LIMIT_BYTES


def test_the_file_goes_before_the_value_and_neither_is_none(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("of the file", encoding="utf-8")
    assert secret_of("k", SecretStr("v"), None) == SecretStr("v")
    assert secret_of("k", None, tmp_path / "s") == SecretStr("of the file")
    assert secret_of("k", None, None) is None


def test_both_are_refused(tmp_path: Path) -> None:
    at_most_one("token", SecretStr("v"), None)
    at_most_one("token", None, tmp_path)
    with pytest.raises(ValueError, match="expected token or token_file, not both"):
        at_most_one("token", SecretStr("v"), tmp_path)
