"""The keys by which agents know one another: `api.peer_key_file`. One key a line; the first signs, all are believed.

To change the key without a gap: add the new one as second line on every node, then put it first everywhere, then delete the old one; the
agents are restarted after each step. Keys never stand in a message, a log or a repr.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agent.configuration.secrets import LONGEST_SECRET_BYTES, read_private_file
from agent.errors import ConfigurationError

SHORTEST_KEY = 32
"""Characters. `openssl rand -hex 32` makes 64."""


@dataclass(frozen=True, slots=True, repr=False)
class PeerKeys:
    """All keys of the file, in its order; at least one."""

    keys: tuple[bytes, ...]

    @property
    def signing(self) -> bytes:
        return self.keys[0]


def load_peer_keys(file: Path) -> PeerKeys:
    """The keys in the file; blank lines and lines that begin with `#` are passed over. Raises ConfigurationError with one line."""
    lines = [line.strip() for line in read_private_file(file, LONGEST_SECRET_BYTES, "these are no peer keys").splitlines()]
    keys = tuple(line for line in lines if line and not line.startswith("#"))
    if not keys:
        raise ConfigurationError((f"{file}: holds no key; `openssl rand -hex 32` makes one",))
    short = next((number for number, line in enumerate(lines, start=1) if line in keys and len(line) < SHORTEST_KEY), None)
    if short is not None:
        raise ConfigurationError((f"{file}:{short}: expected at least {SHORTEST_KEY} characters; `openssl rand -hex 32` makes a key",))
    return PeerKeys(tuple(key.encode("utf-8") for key in keys))
