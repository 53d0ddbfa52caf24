from pathlib import Path

import pytest

from actions.base import ActionError
from actions.postgres_instance import Upstream
from actions.postgres_keep import begin_keeping
from actions.postgres_lifecycle import Fence, Start, _last_log_line, _shell_safe, standby_settings
from actions.postgres_session import PostgresSession
from tests.guards import GUARD
from tests.unit.actions.examples import instance


def test_a_standby_of_nobody_and_of_somebody() -> None:
    assert standby_settings(instance(), None) == {"primary_conninfo": "", "primary_slot_name": ""}
    upstream = Upstream("n2", "192.0.2.12", 5432)
    settings = standby_settings(instance(), upstream, "slot", ("n2",))
    assert settings["primary_conninfo"] == instance().primary_conninfo(upstream)
    assert settings["primary_slot_name"] == "slot"
    assert settings["synchronous_standby_names"] == 'FIRST 1 ("n2")'
    assert standby_settings(instance(), None, sync_names=())["synchronous_standby_names"] == ""


@pytest.mark.parametrize("sign", ["'", '"', "\\", "$", "`", "\n"])
def test_a_path_that_means_something_to_a_shell_is_refused(sign: str) -> None:
    with pytest.raises(ActionError, match="cannot pass on"):
        _shell_safe(Path(f"/etc/a{sign}b"))
    assert _shell_safe(Path("/etc/with space")) == "/etc/with space"


def test_the_last_line_of_trouble(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert _last_log_line(log, 0) == ""
    log.write_text("old FATAL:  before\n")
    seen = log.stat().st_size
    with log.open("a") as file:
        file.write("LOG:  starting\nFATAL:  no room\nLOG:  shut down\n")
    assert _last_log_line(log, seen) == "FATAL:  no room"
    log.write_text("LOG:  one\nLOG:  two\n\n")
    assert _last_log_line(log, 0) == "LOG:  two"


async def test_what_is_no_whole_cluster_is_not_started(tmp_path: Path) -> None:
    made = instance(data_dir=tmp_path / "data")
    made.data_dir.mkdir()
    start = Start(made, PostgresSession(made))
    with pytest.raises(ActionError, match="no complete cluster"):
        await start.apply(GUARD)
    begin_keeping(made.data_dir)
    with pytest.raises(ActionError, match="only a new base copy"):
        await start.apply(GUARD)
    assert list(made.data_dir.iterdir()) == [], "nothing was written"


async def test_a_fence_needs_no_service(tmp_path: Path) -> None:
    struck: list[tuple[Path, int, float]] = []
    made = instance(data_dir=tmp_path)
    fence = Fence(made, PostgresSession(made), lambda *arguments: struck.append(arguments), budget_s=0.5)
    await fence.apply(GUARD)
    await fence.verify()
    assert struck == [(tmp_path, made.owner_uid, 0.5)]
