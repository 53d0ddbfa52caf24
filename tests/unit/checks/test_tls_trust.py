from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme

from checks.network import ProbeFailed, Reason
from checks.tls_trust import Trust, explain_certificate, explain_handshake


def test_without_options_the_system_is_trusted_and_names_are_checked() -> None:
    context = Trust().context()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_nothing_is_verified_on_demand_only() -> None:
    context = Trust(verify=False).context()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_NONE, False)


def test_only_the_given_authority_is_trusted(tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    assert len(Trust(ca=tmp_path / "ca.pem").context().get_ca_certs()) == 1


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_files_that_cannot_be_read_are_our_fault_and_named(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "x.pem"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    for trust, words in ((Trust(ca=file), f"ca: {file} cannot be read"), (Trust(cert=file), f"cert: {file} cannot be used")):
        with pytest.raises(ProbeFailed, match=words) as caught:
            trust.context()
        assert caught.value.failure.reason is Reason.TLS


def test_the_own_certificate_is_shown_with_its_key(tmp_path: Path) -> None:
    issued = trustme.CA().issue_cert("quorate@example.test")
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    assert Trust(cert=tmp_path / "cert.pem", key=tmp_path / "key.pem").context()


def test_an_expired_certificate_is_the_targets_fault_and_another_is_ours() -> None:
    expired, unknown = ssl.SSLCertVerificationError("x"), ssl.SSLCertVerificationError("x")
    expired.verify_code, unknown.verify_code, unknown.verify_message = 10, 20, "unable to get\nlocal issuer"
    assert explain_certificate(expired, "x").reason is Reason.FAILED
    failure = explain_certificate(unknown, "x")
    assert (failure.reason, failure.sentence) == (Reason.TLS, "the certificate of x is not accepted: unable to get local issuer")


def test_a_broken_handshake_is_told_in_words() -> None:
    failure = explain_handshake("TLSV13_ALERT_CERTIFICATE_REQUIRED", "x")
    assert failure.sentence == "x does not speak TLS as expected: tlsv13 alert certificate required"
    assert explain_handshake(None, "x").reason is Reason.TLS
