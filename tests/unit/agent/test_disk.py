from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from agent.disk import StorageError, private_folder, replace_file


def test_a_private_folder_is_for_this_user_only(tmp_path: Path) -> None:
    folder = private_folder(tmp_path / "one" / "two")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert private_folder(folder) == folder


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"file/two cannot be written: Not a directory"):
        private_folder(tmp_path / "file" / "two")


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_is_replaced_whole(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "state"
    replace_file(path, b"old", durable)
    with path.open("rb") as before:
        replace_file(path, b"new" * 100_000, durable)
        assert before.read() == b"old", "the old file was written over"
    assert path.read_bytes() == b"new" * 100_000
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["state"]


def test_durable_means_fsync_of_file_and_folder_and_else_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        synced.append(Path(f"/proc/self/fd/{fd}").readlink().name)
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    replace_file(tmp_path / "state", b"1", durable=False)
    assert synced == []
    replace_file(tmp_path / "state", b"1", durable=True)
    assert synced == ["state.new", tmp_path.name]


def test_a_full_disk_is_one_sentence_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "state"
    replace_file(path, b"old", durable=True)
    (tmp_path / "state.new").symlink_to("/dev/full")
    with pytest.raises(StorageError, match=r"state cannot be written: No space left on device"):
        replace_file(path, b"new", durable=True)
    assert path.read_bytes() == b"old"
    replace_file(path, b"new", durable=True)
    assert path.read_bytes() == b"new"
