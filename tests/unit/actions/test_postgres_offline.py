from pathlib import Path

import pytest

from actions.base import ActionError
from actions.postgres_offline import ControlState, OfflineFacts, parse_controldata, read_offline, record_end
from tests.unit.actions.examples import instance

PAGE, SEGMENT = 8192, 1 << 24

TEXT = """\
pg_control version number:            1300
Database system identifier:           7710594993971055926
Database cluster state:               {state}
Latest checkpoint location:           0/3000028
Latest checkpoint's TimeLineID:       2
Minimum recovery ending location:     {recovered}
Min recovery ending loc's timeline:   {timeline}
WAL block size:                       8192
Bytes per WAL segment:                16777216
"""


def wal(folder: Path, lsn: int, length: int) -> None:
    (folder / "pg_wal").mkdir(exist_ok=True)
    with (folder / "pg_wal" / f"00000002{lsn // SEGMENT >> 8:08X}{lsn // SEGMENT & 0xFF:08X}").open("wb") as file:
        file.seek(lsn % SEGMENT)
        file.write(length.to_bytes(4, "little"))


def test_a_clean_primary_ends_where_its_shutdown_record_ends(tmp_path: Path) -> None:
    wal(tmp_path, 0x3000028, 114)
    facts = parse_controldata(TEXT.format(state="shut down", recovered="0/0", timeline=0), tmp_path)
    assert facts == OfflineFacts(ControlState.SHUT_DOWN, "7710594993971055926", 2, 0x3000028, 0x30000A0)
    assert facts.clean
    assert facts.initialised


def test_a_standby_has_at_least_what_its_pages_need(tmp_path: Path) -> None:
    facts = parse_controldata(TEXT.format(state="shut down in recovery", recovered="0/4000000", timeline=3), tmp_path)
    assert (facts.timeline, facts.at_least_lsn, facts.clean) == (3, 0x4000000, True)


def test_a_crashed_primary_has_at_least_its_checkpoint(tmp_path: Path) -> None:
    facts = parse_controldata(TEXT.format(state="in production", recovered="0/0", timeline=0), tmp_path)
    assert (facts.at_least_lsn, facts.clean) == (0x3000028, False)


@pytest.mark.parametrize("text", ["", TEXT.format(state="on holiday", recovered="0/0", timeline=0), "Database cluster state: shut down\n"])
def test_what_is_not_understood_is_said_so(tmp_path: Path, text: str) -> None:
    with pytest.raises(ActionError, match="nothing understood"):
        parse_controldata(text, tmp_path)


def test_a_shutdown_record_that_is_gone_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ActionError, match=r"cannot be read: .*000000020000000000000003"):
        parse_controldata(TEXT.format(state="shut down", recovered="0/0", timeline=0), tmp_path)


@pytest.mark.parametrize(
    ("lsn", "length", "end"),
    [
        (0x3000028, 114, 0x30000A0),  # rounded up to 8
        (0x3002000 - 16, 114, 0x3002000 + 24 + 98 + 6),  # over a page: its header of 24 bytes comes between
        (0x3000000 + SEGMENT - 40, 114, 0x3000000 + SEGMENT + 40 + 74 + 6),  # over a segment: 40 bytes
        (0x3002000 - 120, 114, 0x3002000),  # ends with its page
        (0x3002000 - 16, PAGE + 100, 0x3004000 + 24 + (PAGE + 100 - 16 - (PAGE - 24)) + 4),  # over two pages
    ],
)
def test_where_a_record_ends(tmp_path: Path, lsn: int, length: int, end: int) -> None:
    wal(tmp_path, lsn, length)
    assert record_end(tmp_path, 2, lsn, SEGMENT, PAGE) == end


def test_garbage_in_place_of_a_record_is_no_position(tmp_path: Path) -> None:
    wal(tmp_path, 0x3000028, 0)
    with pytest.raises(ActionError, match="impossible length"):
        record_end(tmp_path, 2, 0x3000028, SEGMENT, PAGE)


async def test_an_empty_folder_is_no_cluster(tmp_path: Path) -> None:
    assert not (await read_offline(instance(data_dir=tmp_path))).initialised
