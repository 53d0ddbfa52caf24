from __future__ import annotations

from pathlib import Path

import pytest

from agent.configuration.peer_keys import load_peer_keys
from agent.errors import ConfigurationError

A, B = "a" * 64, "b" * 32


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "peer.key"
    path.touch(0o600)
    return path


def test_one_key_a_line_the_first_signs(file: Path) -> None:
    file.write_text(f"# of 2026\n{A}\n\n  {B}\r\n")
    keys = load_peer_keys(file)
    assert (keys.signing, keys.keys) == (A.encode(), (A.encode(), B.encode()))
    assert A not in repr(keys)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "holds no key"),
        (b"# nothing\n\n", "holds no key"),
        (b"secret\n", ":1: expected at least 32"),
        (A.encode() + b"\nsecret\n", ":2: expected at least 32"),
        (b"\xff" * 40, "UTF-8"),
        (b"x" * 5000, "longer than"),
    ],
)
def test_what_is_no_key_is_one_line_that_does_not_show_it(file: Path, content: bytes, complaint: str) -> None:
    file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        load_peer_keys(file)
    assert "secret" not in str(caught.value)
    assert len(caught.value.problems) == 1


def test_a_file_that_everybody_may_read_is_refused(file: Path) -> None:
    file.write_text(A)
    file.chmod(0o644)
    with pytest.raises(ConfigurationError, match="every user of this host may read it"):
        load_peer_keys(file)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_peer_keys(tmp_path / "none")
