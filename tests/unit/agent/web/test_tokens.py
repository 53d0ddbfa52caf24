from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from agent.errors import ConfigurationError
from agent.web.tokens import Role, Tokens, load_tokens

TOKEN = "correct horse battery staple"
HASH = hashlib.sha256(TOKEN.encode()).hexdigest()


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    file = path / "tokens.yaml"
    file.write_text(text, encoding="utf-8")
    file.chmod(mode)
    return file


def problems(path: Path, text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as raised:
        load_tokens(write(path, text))
    assert TOKEN not in str(raised.value)
    return tuple(line.removeprefix(str(path)) for line in raised.value.problems)


def test_a_token_is_known_by_its_hash_or_plain(tmp_path: Path) -> None:
    tokens = load_tokens(
        write(
            tmp_path,
            f"tokens:\n  - {{name: grafana, roles: [read], sha256: {HASH}}}\n"
            "  - {name: anna, roles: [operator], token: 0123456789012345}\n",
        )
    )
    grafana, anna = tokens.bearer_of(TOKEN), tokens.bearer_of("0123456789012345")
    assert grafana is not None
    assert anna is not None
    assert (grafana.name, grafana.may(Role.READ), grafana.may(Role.OPERATOR)) == ("grafana", True, False)
    assert (anna.name, anna.may(Role.READ), anna.may(Role.OPERATOR)) == ("anna", True, True)
    assert tokens.bearer_of(TOKEN + " ") is None
    assert tokens.bearer_of("") is None
    assert tokens.bearer_of(HASH) is None, "the hash is not the token"
    assert HASH not in repr(tokens)
    assert TOKEN not in repr(Tokens(tokens.known))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tokens: []\n", "at least 1"),
        ("tokens:\n  - {name: a, roles: [read]}\n", "exactly one of sha256 and token"),
        (f"tokens:\n  - {{name: a, roles: [read], sha256: {HASH}, token: {TOKEN}}}\n", "exactly one of sha256 and token"),
        (f"tokens:\n  - {{name: a, roles: [read], sha256: {TOKEN}}}\n", "64 hexadecimal digits"),
        ("tokens:\n  - {name: a, roles: [read], token: short}\n", "at least 16 characters"),
        (f"tokens:\n  - {{name: a, roles: [root], token: {TOKEN}}}\n", "read"),
        (f"tokens:\n  - {{name: a, roles: [], token: {TOKEN}}}\n", "at least 1"),
        (f"tokens:\n  - {{name: a, roles: [read], token: {TOKEN}}}\n  - {{name: a, roles: [read], token: {TOKEN}}}\n", "a is there twice"),
        (f"tokens:\n  - {{name: a, rolls: [read], token: {TOKEN}}}\n", "rolls"),
        ("just text\n", "keys and values"),
        ("", "is empty"),
        ("tokens: [\n", ""),
    ],
)
def test_each_mistake_is_one_line_without_the_token(tmp_path: Path, text: str, said: str) -> None:
    found = problems(tmp_path, text)
    assert any(said in line for line in found), found
    assert all(line.startswith("/tokens.yaml:") for line in found)


def test_a_file_that_all_users_may_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="chmod 0600"):
        load_tokens(write(tmp_path, f"tokens:\n  - {{name: a, roles: [read], token: {TOKEN}}}\n", mode=0o644))


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        load_tokens(tmp_path / "nowhere.yaml")
    binary = write(tmp_path, "")
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        load_tokens(binary)
    binary.write_bytes(b"#" * (2 << 20))
    with pytest.raises(ConfigurationError, match="no tokens file"):
        load_tokens(binary)
