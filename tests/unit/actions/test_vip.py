from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_interface

import pytest

from actions.base import ActionError, ActionTooLate
from actions.vip import DropVip, RaiseVip, Vip, VipTaken, renew, rival, stands, tell_neighbours, valid_s
from tests.guards import GUARD
from tests.unit.actions.netns import ip, wired

FOUR, SIX = Vip(ip_interface("192.0.2.100/24")), Vip(ip_interface("2001:db8::64/64"), "near")
BOTH = pytest.mark.parametrize("vip", [FOUR, SIX], ids=["ipv4", "ipv6"])


@pytest.fixture
def network() -> Iterator[None]:
    with wired():
        yield


@pytest.mark.parametrize(("left_s", "kernel_s"), [(None, None), (0.01, 1), (0.99, 1), (1.0, 1), (1.01, 2), (1.99, 2), (4.2, 5), (0.0, 1)])
def test_a_lifetime_is_rounded_up(left_s: float | None, kernel_s: int | None) -> None:
    assert valid_s(left_s) == kernel_s


@pytest.mark.usefixtures("network")
@BOTH
async def test_raised_renewed_and_dropped(vip: Vip) -> None:
    assert not await stands(vip)
    assert not await renew(vip, lambda: 5.0)
    raising = RaiseVip(vip, lambda: 4.2, probed=True)
    assert not await raising.is_done()
    await raising.apply(GUARD)
    await raising.verify()
    shown = ip("addr", "show", "dev", "near")
    assert f"{vip.address}" in shown
    assert "valid_lft 5sec preferred_lft 0sec" in shown
    assert await renew(vip, lambda: None)
    assert ip("addr", "show", "dev", "near", "to", vip.text).count("valid_lft forever") == 1
    await tell_neighbours(vip)
    assert await rival(vip) is None
    await raising.undo()
    assert not await stands(vip)
    with pytest.raises(ActionError, match="does not stand"):
        await raising.verify()
    await DropVip(vip).apply(GUARD)
    await DropVip(vip).verify()
    await DropVip(vip).undo()


@pytest.mark.usefixtures("network")
async def test_one_that_answers_elsewhere_is_refused_by_name() -> None:
    """The other end of the wire is this very host, whose own interfaces are no rivals: so the rival is a made-up answer."""
    with pytest.raises(VipTaken) as refused:
        raise VipTaken("192.0.2.100", "02:00:00:00:00:02")
    assert refused.value.mac == "02:00:00:00:00:02"
    ip("addr", "add", "192.0.2.100/32", "dev", "far")
    assert await rival(FOUR) is None


@pytest.mark.usefixtures("network")
@BOTH
async def test_a_right_that_ends_while_it_is_added_takes_it_off_again(vip: Vip) -> None:
    left = iter([1.0])

    def lifetime() -> float:
        seconds = next(left, None)
        if seconds is None:
            raise ActionTooLate("over")
        return seconds

    with pytest.raises(ActionTooLate):
        await RaiseVip(vip, lifetime, probed=True).apply(GUARD)
    assert not await stands(vip)


@pytest.mark.usefixtures("network")
async def test_where_it_goes_is_said_or_found() -> None:
    with pytest.raises(ActionError, match=r"^192.0.2.100: this host has no interface eth7$"):
        await RaiseVip(Vip(FOUR.address, "eth7"), lambda: 1.0).apply(GUARD)
    with pytest.raises(ActionError, match=r"no interface of this host has an address in 198\.51\.100\.0/24"):
        await rival(Vip(ip_interface("198.51.100.7/24")))
    there = Vip(ip_interface("198.51.100.7/24"), "far")
    await RaiseVip(there, lambda: 5.0, probed=True).apply(GUARD)
    assert "198.51.100.7/24" in ip("addr", "show", "dev", "far")
    assert await RaiseVip(there, lambda: 5.0).is_done()
    wrong = Vip(ip_interface("198.51.100.7/24"), "near")
    assert not await RaiseVip(wrong, lambda: 5.0).is_done()
