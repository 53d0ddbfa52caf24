"""Who may ask for what: the tokens file, and how a token is recognised. Tokens are kept as hashes and never shown.

    tokens:
      - {name: grafana, roles: [read], sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08}
      - {name: anna,    roles: [operator], token: "a long random text"}

`printf %s "$TOKEN" | sha256sum` makes the hash. An operator may also read.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from agent.configuration.document import Problem, UnreadableDocument, dotted, read_document
from agent.configuration.secrets import read_private_file
from agent.configuration.validation import Section, validate
from agent.errors import ConfigurationError

MAX_FILE_BYTES = 1 << 20
SHORTEST_TOKEN = 16
_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)


class Role(StrEnum):
    """What a token is good for."""

    READ = "read"
    OPERATOR = "operator"


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,62}$")
    roles: tuple[Role, ...] = Field(min_length=1)
    sha256: str | None = None
    token: str | None = None


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    tokens: tuple[_Entry, ...] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Bearer:
    """Who showed a token, and what it is good for."""

    name: str
    roles: frozenset[Role]

    def may(self, role: Role) -> bool:
        return role in self.roles or Role.OPERATOR in self.roles


@dataclass(frozen=True, slots=True, repr=False)
class Tokens:
    """All tokens of the file, as (hash, bearer)."""

    known: tuple[tuple[bytes, Bearer], ...]

    def bearer_of(self, token: str) -> Bearer | None:
        """Who it is; takes as long for a wrong token as for a right one."""
        shown = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        found: Bearer | None = None
        for digest, bearer in self.known:
            if hmac.compare_digest(digest, shown):
                found = bearer
        return found


def load_tokens(path: Path) -> Tokens:
    """The tokens in the file. Raises ConfigurationError with one line for each mistake; never quotes a token."""
    text = read_private_file(path, MAX_FILE_BYTES, "this is no tokens file")
    try:
        document = read_document(text, {})
    except UnreadableDocument as error:
        raise ConfigurationError((f"{path}:{error.line}: {error.sentence}",)) from None
    valid = validate(_File, document.values, Section(document.spots))
    problems = (*document.problems, *valid.problems)
    if valid.model is not None and not problems:
        problems = tuple(_problems(valid.model.tokens))
    if problems or valid.model is None:
        lines = tuple(f"{path}:{p.line or document.line(p.path)}: {dotted(p.path)}: {p.sentence}" for p in problems)
        raise ConfigurationError(lines or (f"{path}: holds no tokens",))
    return Tokens(tuple((_digest(entry), Bearer(entry.name, frozenset(entry.roles))) for entry in valid.model.tokens))


def _problems(entries: tuple[_Entry, ...]) -> list[Problem]:
    """What no single key can tell. No sentence holds a value: somebody may have put the token where the hash belongs."""
    found: list[Problem] = []
    names: set[str] = set()
    for number, entry in enumerate(entries):
        place = ("tokens", number)
        if (entry.sha256 is None) == (entry.token is None):
            found.append(Problem(place, "expected exactly one of sha256 and token"))
        if entry.sha256 is not None and _HASH.fullmatch(entry.sha256) is None:
            found.append(Problem((*place, "sha256"), "expected 64 hexadecimal digits in lower case"))
        if entry.token is not None and len(entry.token) < SHORTEST_TOKEN:
            found.append(Problem((*place, "token"), f"expected at least {SHORTEST_TOKEN} characters"))
        if entry.name in names:
            found.append(Problem((*place, "name"), f"{entry.name} is there twice"))
        names.add(entry.name)
    return found


def _digest(entry: _Entry) -> bytes:
    if entry.sha256 is not None:
        return bytes.fromhex(entry.sha256)
    assert entry.token is not None
    return hashlib.sha256(entry.token.encode("utf-8")).digest()
