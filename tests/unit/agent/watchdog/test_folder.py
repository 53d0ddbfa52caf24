"""One watchdog a folder, a socket for our user only, groups that outlive us."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from agent.watchdog.deadline import Target
from agent.watchdog.folder import Folder, FolderError
from agent.watchdog.protocol import GROUPS, LOCK, MOST_GROUPS, SOCKET

GROUP = {"g": Target("/data/\udcff", 5, 0.5)}


def test_the_second_is_told_who_the_first_is(tmp_path: Path) -> None:
    first = Folder(str(tmp_path))
    with pytest.raises(FolderError, match=rf"^another watchdog \(pid {os.getpid()}\) guards {tmp_path}$"):
        Folder(str(tmp_path))
    first.close()
    Folder(str(tmp_path)).close()


@pytest.mark.parametrize("name", ["missing", "file"])
def test_what_is_no_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FolderError, match="cannot be opened"):
        Folder(str(tmp_path / name))


def test_a_folder_that_everybody_may_write_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(FolderError, match="could kill here"):
        Folder(str(tmp_path))


def test_a_lock_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    (tmp_path / LOCK).symlink_to("/dev/null")
    with pytest.raises(FolderError, match="cannot be opened"):
        Folder(str(tmp_path))


def test_the_socket_is_reached_through_the_longest_path_and_by_us_only(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    (deep / SOCKET).touch()  # left by an earlier life
    folder = Folder(str(deep))
    with folder.listen():
        assert stat.S_IMODE((deep / SOCKET).stat().st_mode) == 0o600
        handle = os.open(deep, os.O_PATH)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.connect(f"/proc/self/fd/{handle}/{SOCKET}")
        os.close(handle)
    folder.close()


def test_a_socket_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    (tmp_path / SOCKET).mkdir()
    with pytest.raises(FolderError, match="cannot be made"):
        folder.listen()
    folder.close()


def test_groups_are_read_back_as_they_were_kept(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    assert folder.read_groups() == {}
    folder.keep_groups(GROUP)
    assert folder.read_groups() == GROUP
    assert stat.S_IMODE((tmp_path / GROUPS).stat().st_mode) == 0o600
    folder.keep_groups({})
    assert folder.read_groups() == {}
    folder.close()


def test_groups_that_cannot_be_kept_leave_the_old_ones(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    folder.keep_groups(GROUP)
    (tmp_path / f"{GROUPS}.new").mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        folder.keep_groups({})
    assert folder.read_groups() == GROUP
    folder.close()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"groups": 1}',
        '{"groups": [1]}',
        '{"groups": [{"group": "g"}]}',
        '{"groups": [{"group": 1, "data_dir": "/d", "uid": 0, "fence_budget_s": 1}]}',
        '{"groups": [{"group": "g", "data_dir": "/", "uid": 0, "fence_budget_s": 1}]}',
        "[" * 100_000,
    ],
)
def test_a_broken_list_of_groups_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / GROUPS).write_text(text)
    folder = Folder(str(tmp_path))
    with pytest.raises(FolderError, match="holds no list of groups"):
        folder.read_groups()
    folder.close()


def test_an_unreadable_list_of_groups_is_told(tmp_path: Path) -> None:
    (tmp_path / GROUPS).symlink_to("/dev/null")
    folder = Folder(str(tmp_path))
    with pytest.raises(FolderError, match="cannot be read"):
        folder.read_groups()
    folder.close()


def test_an_endless_list_of_groups_is_cut(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    folder.keep_groups({f"g{number}": Target("/data", 5, 0.5) for number in range(MOST_GROUPS + 5)})
    assert len(folder.read_groups()) == MOST_GROUPS
    folder.close()


def test_a_folder_that_was_replaced_is_not_ours(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    folder = Folder(str(state))
    assert folder.is_ours()
    state.rename(tmp_path / "old")
    assert not folder.is_ours()
    state.mkdir()
    (state / LOCK).touch()
    assert not folder.is_ours()
    folder.close()


def test_addresses_are_kept_and_an_older_list_has_none(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    groups = {"g": Target("/data", 5, 0.5, ("192.0.2.100/24",))}
    folder.keep_groups(groups)
    assert folder.read_groups() == groups
    for text, addresses in (("", ()), (', "addresses": []', ())):
        (tmp_path / GROUPS).write_text(f'{{"groups": [{{"group": "g", "data_dir": "/data", "uid": 5, "fence_budget_s": 0.5{text}}}]}}')
        assert folder.read_groups() == {"g": Target("/data", 5, 0.5, addresses)}
    for wrong in ('"x"', "[5]", '["eth0"]'):
        (tmp_path / GROUPS).write_text(
            f'{{"groups": [{{"group": "g", "data_dir": "/data", "uid": 5, "fence_budget_s": 0.5, "addresses": {wrong}}}]}}'
        )
        with pytest.raises(FolderError, match="holds no list of groups"):
            folder.read_groups()
    folder.close()
