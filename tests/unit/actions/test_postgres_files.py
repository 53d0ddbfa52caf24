import os
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from actions import postgres_files as files
from actions.base import ActionError
from tests.polling import eventually

FULL = {"primary_conninfo": "host=b password='it''s'", "primary_slot_name": "s", "synchronous_standby_names": 'FIRST 1 ("b")'}


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    (tmp_path / "pg_wal").mkdir()
    return tmp_path


def auto(data_dir: Path) -> Path:
    return data_dir / "postgresql.auto.conf"


# ------------------------------------------------------------------ role settings


def test_foreign_lines_and_comments_stay_byte_by_byte(data_dir: Path) -> None:
    foreign = b"# Do not edit\nwork_mem = '4MB'  # mine\n\n  include 'x'\nlatin = 'caf\xe9'\n"
    auto(data_dir).write_bytes(foreign + b"primary_conninfo = 'a'\n PRIMARY_CONNINFO 'b'\nprimary_slot_name='x'\n")
    files.write_role_settings(data_dir, {"primary_conninfo": "c"})
    assert auto(data_dir).read_bytes() == foreign + b"primary_slot_name='x'\nprimary_conninfo = 'c'\n"


@pytest.mark.parametrize("settings", [FULL, dict.fromkeys(FULL, ""), {"primary_conninfo": "a\\b'c\\'d"}])
def test_what_was_written_is_read_back(data_dir: Path, settings: Mapping[str, str]) -> None:
    files.write_role_settings(data_dir, settings)
    assert files.read_role_settings(data_dir) == {**dict.fromkeys(FULL, ""), **settings}


def test_the_last_of_two_lines_wins_when_read(data_dir: Path) -> None:
    auto(data_dir).write_text("primary_slot_name = 'old'\nprimary_slot_name = new # comment\n")
    assert files.read_role_settings(data_dir)["primary_slot_name"] == "new"


def test_no_file_means_nothing_is_set(data_dir: Path) -> None:
    assert files.read_role_settings(data_dir) == dict.fromkeys(FULL, "")


def test_a_line_break_is_refused(data_dir: Path) -> None:
    with pytest.raises(ActionError, match="line break"):
        files.write_role_settings(data_dir, {"primary_conninfo": "a\nfsync = off"})


def test_settings_of_the_user_are_not_ours_to_write(data_dir: Path) -> None:
    with pytest.raises(AssertionError):
        files.write_role_settings(data_dir, {"fsync": "off"})


# ------------------------------------------------------------------ durable writing


def test_a_file_is_replaced_whole_and_private(data_dir: Path) -> None:
    path = data_dir / "x"
    path.write_text("old")
    path.with_name(".x.quorate").write_text("left by a crash")
    files.write_durably(path, b"new")
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(entry.name for entry in data_dir.iterdir()) == ["pg_wal", "x"]


def test_links_are_not_followed(data_dir: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    auto(data_dir).symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        files.read_role_settings(data_dir)
    (data_dir / "standby.signal").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        files.seal(data_dir)
    files.write_durably(auto(data_dir), b"x")
    assert victim.read_text() == "untouched"
    os.mkfifo(data_dir / "pipe")
    with pytest.raises(ActionError, match="no plain file"):
        files.read_bytes(data_dir / "pipe")


def test_seal(data_dir: Path) -> None:
    assert not files.is_sealed(data_dir)
    files.seal(data_dir)
    files.seal(data_dir)
    assert files.is_sealed(data_dir)
    assert (data_dir / "standby.signal").stat().st_mode & 0o777 == 0o600


def test_the_seal_is_put_back_when_it_is_taken_away(data_dir: Path) -> None:
    files.seal(data_dir)
    watching = threading.Thread(target=files.seal_again, args=(data_dir, threading.Event()))
    watching.start()
    (data_dir / "standby.signal").unlink()
    eventually(lambda: files.is_sealed(data_dir), within_s=2)
    watching.join(timeout=2)
    assert not watching.is_alive(), "it looks after it once"


def test_whoever_looks_after_the_seal_ends_when_told_to(data_dir: Path) -> None:
    files.seal(data_dir)
    told = threading.Event()
    told.set()
    files.seal_again(data_dir, told)
    assert files.is_sealed(data_dir)


# ------------------------------------------------------------------ timelines


def history(data_dir: Path, timeline: int, text: str) -> None:
    files.history_path(data_dir, timeline).write_text(text)


def test_the_newest_timeline_is_told_by_wal_and_not_by_history(data_dir: Path) -> None:
    assert files.newest_timeline(data_dir) == 0
    for name in ("000000010000000000000002", "0000000A0000000000000003.partial", "0000000B.history", "archive_status", "xlogtemp.12"):
        (data_dir / "pg_wal" / name).touch()
    assert files.newest_timeline(data_dir) == 10
    assert files.known_histories(data_dir) == (11,)
    assert files.newest_timeline(data_dir / "nowhere") == 0


def test_a_history_is_read_oldest_first(data_dir: Path) -> None:
    history(data_dir, 3, "# why\n1\t0/3000000\tno recovery target specified\n\n2\t1/AB\tbefore 2000-01-01\n")
    assert files.read_history(data_dir, 3) == ((1, 0x3000000), (2, 0x1000000AB))
    assert files.read_history(data_dir, 2) == ()


def test_placeholders_fill_every_gap_and_nothing_that_is_there(data_dir: Path) -> None:
    (data_dir / "pg_wal" / "000000010000000000000002").touch()
    history(data_dir, 3, "1\t0/1\tx\n")
    assert files.place_placeholders(data_dir, 4) == (2, 4)
    assert files.known_histories(data_dir) == (2, 3, 4)
    assert files.read_history(data_dir, 2) == ()
    assert files.read_history(data_dir, 3) == ((1, 1),)
    assert files.place_placeholders(data_dir, 4) == ()
    assert files.remove_placeholders(data_dir) == (2, 4)
    assert files.known_histories(data_dir) == (3,)


def test_placeholders_below_the_own_timeline_stay_for_those_who_come_later(data_dir: Path) -> None:
    (data_dir / "pg_wal" / "000000010000000000000002").touch()
    files.place_placeholders(data_dir, 2)
    (data_dir / "pg_wal" / "000000030000000000000002").touch()
    assert files.remove_placeholders(data_dir) == ()
    assert files.known_histories(data_dir) == (2,)


def test_an_absurd_number_is_refused(data_dir: Path) -> None:
    with pytest.raises(ActionError, match="too far above"):
        files.place_placeholders(data_dir, 1 << 30)


def test_futures_that_were_not_reached(data_dir: Path) -> None:
    history(data_dir, 2, "1\t0/500\tx\n")
    history(data_dir, 3, "1\t0/500\tx\n2\t0/600\tx\n")
    history(data_dir, 4, "# quorate\n")
    assert files.unreached_futures(data_dir, 1, 0x400) == (2, 3)
    assert files.unreached_futures(data_dir, 1, 0x500) == ()
    assert files.unreached_futures(data_dir, 2, 0x550) == (3,)
    files.forget_futures(data_dir, (2, 3))
    assert files.known_histories(data_dir) == (4,)


def test_a_cluster_is_there_when_its_control_file_is(data_dir: Path) -> None:
    assert not files.is_initialised(data_dir)
    (data_dir / "global").mkdir()
    (data_dir / "global" / "pg_control").touch()
    assert files.is_initialised(data_dir)
