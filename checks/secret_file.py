"""Secrets that the options of a check name by a file. Read at each run, so that they may change. Never in a sentence or a log."""

from __future__ import annotations

from pathlib import Path

from pydantic import SecretStr

from checks.network import ProbeFailed, Reason

SECRET_LIMIT_BYTES = 4096


def read_secret(key: str, path: Path) -> SecretStr:
    """The first line of the file that the option `key` names. ProbeFailed(LOCAL) says why it cannot be read."""
    try:
        with path.open(encoding="utf-8") as file:
            secret = file.readline(SECRET_LIMIT_BYTES).rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        words = getattr(error, "strerror", None) or "it is no text"
        raise ProbeFailed(Reason.LOCAL, f"{key}: {path} cannot be read: {words}") from None
    if not secret:
        raise ProbeFailed(Reason.LOCAL, f"{key}: {path} is empty")
    return SecretStr(secret)


def secret_of(key: str, value: SecretStr | None, path: Path | None) -> SecretStr | None:
    """The secret itself, or that of its file, or None. `key`: the option that names the file."""
    return value if path is None else read_secret(key, path)


def at_most_one(key: str, value: SecretStr | None, path: Path | None) -> None:
    """ValueError when an options model has both the secret called `key` and its file."""
    if value is not None and path is not None:
        raise ValueError(f"expected {key} or {key}_file, not both")
