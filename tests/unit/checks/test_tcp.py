from __future__ import annotations

import pytest
from pydantic import ValidationError

from checks.tcp import TcpOptions


def test_an_address_is_kept_as_it_was_written() -> None:
    assert TcpOptions(address="[2001:db8::1]:443").address == "[2001:db8::1]:443"


@pytest.mark.parametrize("address", ["localhost", "localhost:x", ":1"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValidationError, match="HOST:PORT"):
        TcpOptions(address=address)
