"""Secrets: which keys hold one, how to read one from its file, how to show a tree without any. Never logs, never puts one into a message.

A password file holds the password and nothing else; the newline that editors add at its end is not part of it.
"""

from __future__ import annotations

import re
import stat
from pathlib import Path

from pydantic import SecretStr

from agent.configuration.document import Tree
from agent.configuration.model import SHOWN_SECRET, Login
from agent.errors import ConfigurationError

LONGEST_SECRET_BYTES = 4096

_SECRET_KEY = re.compile(
    r"(?:pass(?:word|wd|phrase)?|pwd|secret|token|authorization|cookie|header|dsn|api[-_]?key|private[-_]?key)s?$", re.IGNORECASE
)
_IN_DSN = re.compile(r"(?i)(password\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s&]+)")
_IN_URL = re.compile(r"(://[^/\s:@]*:)[^/\s@]*(@)")


def is_secret_key(key: str) -> bool:
    """Whether a value under this key must never be quoted. `password_file` is a path and may be."""
    return _SECRET_KEY.search(key) is not None


def read_login(login: Login) -> tuple[str, str | None]:
    """User and password; None when the login has no password. Raises ConfigurationError with one line when the file cannot be read."""
    if login.password is not None:
        return login.user, login.password.get_secret_value()
    if login.password_file is None:
        return login.user, None
    return login.user, read_secret(login.password_file)


def read_secret(file: Path) -> str:
    """What the file holds, without one newline at its end. Raises ConfigurationError with one line that names the file."""
    secret = read_small_file(file, LONGEST_SECRET_BYTES, "this is no password")
    secret = secret.removesuffix("\n").removesuffix("\r")
    if not secret or "\n" in secret or "\0" in secret:
        raise ConfigurationError((f"{file}: expected one line with the password and nothing else",))
    return secret


def read_private_file(file: Path, most_bytes: int, otherwise: str) -> str:
    """The same for a file that holds several secrets: one that every user may read is refused."""
    exposed = exposure(file)
    if exposed is not None:
        raise ConfigurationError((exposed,))
    return read_small_file(file, most_bytes, otherwise)


def read_small_file(file: Path, most_bytes: int, otherwise: str) -> str:
    """The file's text. Raises ConfigurationError with one line; `otherwise` is what a file longer than `most_bytes` is."""
    try:
        with file.open("rb") as opened:
            content = opened.read(most_bytes + 1)
    except OSError as error:
        raise ConfigurationError((f"{file}: cannot be read: {error.strerror or 'the system refused'}",)) from None
    if len(content) > most_bytes:
        raise ConfigurationError((f"{file}: is longer than {most_bytes} bytes: {otherwise}",))
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigurationError((f"{file}: is not UTF-8 text",)) from None


def exposure(file: Path) -> str | None:
    """A warning when users other than the owner and its group may read the file; None when not, or when nobody can tell."""
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
    except OSError:
        return None
    return f"{file}: every user of this host may read it (mode {mode:04o}); chmod 0600 or 0640" if mode & 0o007 else None


def masked(tree: Tree, key: str = "") -> Tree:
    """The tree with `********` for each secret: under a secret's key, in a connection string, in a URL."""
    if isinstance(tree, dict):
        return {name: masked(value, name) for name, value in tree.items()}
    if isinstance(tree, list):
        return [masked(value, key) for value in tree]
    if isinstance(tree, str):
        if (is_secret_key(key) and not key.lower().endswith("dsn")) or tree == str(SecretStr("any")):
            return SHOWN_SECRET
        return _IN_URL.sub(rf"\g<1>{SHOWN_SECRET}\g<2>", _IN_DSN.sub(rf"\g<1>{SHOWN_SECRET}", tree))
    return SHOWN_SECRET if is_secret_key(key) and tree is not None else tree
