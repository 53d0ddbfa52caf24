from pathlib import Path

import pytest
from pydantic import SecretStr

from agent.configuration.document import Tree
from agent.configuration.model import Login
from agent.configuration.secrets import exposure, is_secret_key, masked, read_login, read_secret
from agent.errors import ConfigurationError


def test_a_login_without_password_has_none() -> None:
    assert read_login(Login(user="a")) == ("a", None)


def test_an_inline_password_is_given() -> None:
    assert read_login(Login(user="a", password=SecretStr("b"))) == ("a", "b")


@pytest.mark.parametrize(("content", "password"), [("b", "b"), ("b\n", "b"), ("b\r\n", "b"), (" b ", " b "), ("ü\n", "ü")])
def test_a_password_file_gives_its_line(tmp_path: Path, content: str, password: str) -> None:
    file = tmp_path / "password"
    file.write_bytes(content.encode())
    assert read_login(Login(user="a", password_file=file)) == ("a", password)


@pytest.mark.parametrize("content", [b"", b"\n", b"hunter2\nmore\n", b"hunter2\xff", b"hunter2" * 1000, b"hunter2\0"])
def test_a_file_that_holds_no_password_is_one_line_without_its_content(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "password"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError) as refused:
        read_secret(file)
    (problem,) = refused.value.problems
    assert problem.startswith(f"{file}: ")
    assert "hunter2" not in problem


def test_a_missing_password_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="none: cannot be read: No such file or directory"):
        read_secret(tmp_path / "none")


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, False), (0o644, True), (0o602, True)])
def test_a_password_file_that_everybody_may_read_is_warned_of(tmp_path: Path, mode: int, warned: bool) -> None:
    file = tmp_path / "password"
    file.write_text("hunter2", encoding="utf-8")
    file.chmod(mode)
    warning = exposure(file)
    assert (warning is not None) == warned
    assert "hunter2" not in str(warning)
    assert exposure(tmp_path / "none") is None


@pytest.mark.parametrize(
    "key", ["password", "Password", "db_password", "token", "secret", "Authorization", "X-Api-Key", "dsn", "headers", "passphrase"]
)
def test_secret_keys(key: str) -> None:
    assert is_secret_key(key)


@pytest.mark.parametrize("key", ["password_file", "token_file", "tokens_file", "user", "path", "port", "peer_key_file"])
def test_other_keys(key: str) -> None:
    assert not is_secret_key(key)


@pytest.mark.parametrize(
    ("tree", "shown"),
    [
        ({"password": "x", "password_file": "/x"}, {"password": "********", "password_file": "/x"}),
        ({"token": ["x", "y"]}, {"token": ["********", "********"]}),
        ({"password": 5}, {"password": "********"}),
        ({"dsn": "host=a password=hunter2 user=b"}, {"dsn": "host=a password=******** user=b"}),
        ({"dsn": "host=a password = 'a b\\' c' user=b"}, {"dsn": "host=a password = ******** user=b"}),
        ({"url": "http://me:hunter2@host/x"}, {"url": "http://me:********@host/x"}),
        ({"dsn": "postgresql://me:hun:ter2@host/x?password=abc&a=b"}, {"dsn": "postgresql://me:********@host/x?password=********&a=b"}),
        ({"headers": {"X": "**********"}}, {"headers": {"X": "********"}}),
        ({"a": [{"secret": "x"}], "n": 5, "t": True}, {"a": [{"secret": "********"}], "n": 5, "t": True}),
    ],
)
def test_a_tree_is_shown_without_secrets(tree: Tree, shown: Tree) -> None:
    assert masked(tree) == shown
