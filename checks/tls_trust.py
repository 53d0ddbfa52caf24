"""Whom a check trusts over TLS, and what a failed handshake means: an expired certificate is the target's fault, the rest is ours."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from checks.network import Failure, ProbeFailed, Reason, clean

_CERTIFICATE_EXPIRED = 10


@dataclass(frozen=True, slots=True)
class Trust:
    """The TLS part of a check's options."""

    ca: Path | None = None
    """Certificates to trust instead of the system's."""
    verify: bool = True
    cert: Path | None = None
    """What we show of ourselves, with its key."""
    key: Path | None = None

    def context(self) -> ssl.SSLContext:
        """Slow (it reads the system's certificates): make it once. ProbeFailed(TLS) when a file cannot be read."""
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except (OSError, ssl.SSLError) as error:
            raise ProbeFailed(Reason.TLS, f"the certificates of ca: {self.ca} cannot be read: {error.strerror or error}") from None
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.cert is not None:
            try:
                context.load_cert_chain(self.cert, self.key)
            except (OSError, ssl.SSLError) as error:
                words = clean(error.strerror or str(error))
                raise ProbeFailed(Reason.TLS, f"the own certificate of cert: {self.cert} cannot be used: {words}") from None
        return context


def explain_certificate(error: Exception, name: str) -> Failure:
    """What a certificate that is not accepted means."""
    words = clean(getattr(error, "verify_message", "") or "it is not trusted")
    if getattr(error, "verify_code", None) == _CERTIFICATE_EXPIRED:
        return Failure(Reason.FAILED, f"the certificate of {name} has expired")
    return Failure(Reason.TLS, f"the certificate of {name} is not accepted: {words}")


def explain_handshake(reason: str | None, name: str) -> Failure:
    """What a handshake that broke off means; `reason`: the library's words."""
    return Failure(Reason.TLS, f"{name} does not speak TLS as expected: {clean((reason or '').replace('_', ' ').lower())}")
