from __future__ import annotations

import os
import ssl
from pathlib import Path

import pytest
import trustme

from agent.configuration.secrets import read_secret
from agent.coordination.consul_access import Access, ConsulPlace
from agent.errors import ConfigurationError

HTTP = ("http://127.0.0.1:8500",)
HTTPS = ("https://127.0.0.1:8501",)


def write(file: Path, text: str) -> Path:
    """As a tool does it: a new file in the old one's place."""
    (file.parent / "new").write_text(text, encoding="utf-8")
    os.replace(file.parent / "new", file)  # noqa: PTH105 - shorter than it says
    return file


def test_a_token_that_is_written_down() -> None:
    assert Access(ConsulPlace(HTTP), read_secret).token() is None
    assert Access(ConsulPlace(HTTP, token="abc"), read_secret).token() == "abc"
    assert "abc" not in repr(ConsulPlace(HTTP, token="abc"))


def test_a_token_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    file = write(tmp_path / "token", "first\n")
    access = Access(ConsulPlace(HTTP, token_file=file), read_secret)
    assert access.token() == "first"
    write(file, "second\n")
    assert access.token() == "second"


def test_half_a_renewal_changes_nothing(tmp_path: Path) -> None:
    file = write(tmp_path / "token", "first\n")
    access = Access(ConsulPlace(HTTP, token_file=file), read_secret)
    file.unlink()
    assert access.token() == "first"
    write(file, "")
    assert access.token() == "first"
    write(file, "second\n")
    assert access.token() == "second"


def test_a_token_file_that_is_not_there_at_the_start_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=f"{tmp_path}/token: cannot be read"):
        Access(ConsulPlace(HTTP, token_file=tmp_path / "token"), read_secret)


@pytest.fixture
def place(tmp_path: Path) -> ConsulPlace:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    shown = authority.issue_cert("quorate")
    shown.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    shown.private_key_pem.write_to_path(tmp_path / "key.pem")
    return ConsulPlace(HTTPS, ca_file=tmp_path / "ca.pem", cert=tmp_path / "cert.pem", key=tmp_path / "key.pem")


def test_certificates_are_read_again_when_they_change(place: ConsulPlace, tmp_path: Path) -> None:
    access = Access(place, read_secret)
    first = access.tls()
    assert isinstance(first, ssl.SSLContext)
    assert first.verify_mode is ssl.CERT_REQUIRED
    assert access.tls() is first
    write(tmp_path / "ca.pem", (tmp_path / "ca.pem").read_text(encoding="utf-8") + "\n")
    assert access.tls() is not first


def test_without_https_no_certificate_is_read(tmp_path: Path) -> None:
    assert Access(ConsulPlace(HTTP, ca_file=tmp_path / "none"), read_secret).tls() is True
    assert isinstance(Access(ConsulPlace(HTTPS), read_secret).tls(), ssl.SSLContext)


def test_certificates_that_cannot_be_used_are_one_line_that_names_the_file(place: ConsulPlace, tmp_path: Path) -> None:
    assert place.key is not None
    other = trustme.CA().issue_cert("other").private_key_pem.bytes().decode()
    for file, text in ((tmp_path / "ca.pem", "nonsense"), (tmp_path / "key.pem", "nonsense"), (tmp_path / "key.pem", other)):
        before = file.read_text(encoding="utf-8")
        write(file, text)
        with pytest.raises(ConfigurationError, match=str(file)) as error:
            Access(place, read_secret)
        assert len(error.value.problems) == 1
        write(file, before)
    (tmp_path / "ca.pem").unlink()
    with pytest.raises(ConfigurationError, match="No such file"):
        Access(place, read_secret)


ENCRYPTED = """-----BEGIN RSA PRIVATE KEY-----
Proc-Type: 4,ENCRYPTED
DEK-Info: AES-128-CBC,00112233445566778899AABBCCDDEEFF

AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA
-----END RSA PRIVATE KEY-----
"""


def test_a_key_with_a_passphrase_is_a_mistake_and_asks_nobody(place: ConsulPlace, tmp_path: Path) -> None:
    write(tmp_path / "key.pem", ENCRYPTED)
    with pytest.raises(ConfigurationError, match="the key asks for a passphrase"):
        Access(place, read_secret)
