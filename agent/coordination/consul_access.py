"""Where Consul is and how this agent shows who it is: addresses, token, certificates. Files that change are read again.

A token or certificate that is renewed by a tool (Vault, consul-template) takes effect with the next question, without a restart. A renewed
file that cannot be read changes nothing: what was read last stays in force. Must never put a token into an error or a log.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from agent.errors import ConfigurationError

T = TypeVar("T")
Signature = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class ConsulPlace:
    """A Consul as configured. `read_token` reads the token's file; it raises ConfigurationError with one line."""

    urls: tuple[str, ...]
    prefix: str = "quorate"
    token: str | None = None
    token_file: Path | None = None
    ca_file: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def __repr__(self) -> str:
        return f"ConsulPlace({', '.join(self.urls)}, {self.prefix})"


class _Followed(Generic[T]):
    """What was made from files, made anew when they change."""

    def __init__(self, files: Sequence[Path], make: Callable[[], T]) -> None:
        self._files = files
        self._make = make
        self._signature = self._sign()
        self._made = make()

    def get(self) -> T:
        """The latest that could be made."""
        signature = self._sign()
        if signature is not None and signature != self._signature:
            try:
                self._made = self._make()
                self._signature = signature
            except ConfigurationError:
                pass  # half a renewal: looked at again with the next question
        return self._made

    def _sign(self) -> Signature | None:
        try:
            return tuple((stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in (file.stat() for file in self._files))
        except OSError:
            return None


class Access:
    """Token and TLS of each question. Raises ConfigurationError when they cannot be read at the start."""

    def __init__(self, place: ConsulPlace, read_secret: Callable[[Path], str]) -> None:
        file = place.token_file
        self._fixed = place.token
        self._token = None if file is None else _Followed((file,), lambda: read_secret(file))
        files = tuple(each for each in (place.ca_file, place.cert, place.key) if each is not None)
        uses_tls = any(url.startswith("https:") for url in place.urls)
        self._tls = _Followed(files, lambda: _context(place)) if uses_tls else None

    def token(self) -> str | None:
        """The token of this moment; None: none, which is Consul's anonymous one."""
        return self._fixed if self._token is None else self._token.get()

    def tls(self) -> ssl.SSLContext | bool:
        """What a connection is judged by."""
        return True if self._tls is None else self._tls.get()


def _context(place: ConsulPlace) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=None if place.ca_file is None else str(place.ca_file))
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError((f"{place.ca_file}: is no file of certificates in PEM: {_reason(error)}",)) from None
    if place.cert is not None and place.key is not None:
        try:
            context.load_cert_chain(place.cert, place.key, password=_no_passphrase)
        except (OSError, ssl.SSLError, ValueError) as error:
            raise ConfigurationError((f"{place.cert} and {place.key}: cannot be used together: {_reason(error)}",)) from None
    return context


def _no_passphrase() -> str:
    raise ValueError("the key asks for a passphrase")


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
        return error.strerror or "the system refused"
    return str(error)
