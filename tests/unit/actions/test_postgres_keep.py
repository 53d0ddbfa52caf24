from pathlib import Path

import pytest

from actions import postgres_keep as keep


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    (folder / "postgresql.conf").write_text("mine")
    (folder / "pg_hba.conf").symlink_to("/etc/elsewhere")
    return folder


def test_what_is_kept_comes_back_and_what_was_not_there_goes(data_dir: Path) -> None:
    keep.begin_keeping(data_dir)
    assert keep.rewind_is_unfinished(data_dir)
    (data_dir / "postgresql.conf").write_text("the source's")
    (data_dir / "pg_hba.conf").unlink()
    (data_dir / "pg_hba.conf").write_text("the source's")
    (data_dir / "pg_ident.conf").write_text("the source's")
    keep.restore_kept(data_dir)
    assert (data_dir / "postgresql.conf").read_text() == "mine"
    assert str((data_dir / "pg_hba.conf").readlink()) == "/etc/elsewhere"
    assert not (data_dir / "pg_ident.conf").exists()
    keep.end_keeping(data_dir)
    assert not keep.rewind_is_unfinished(data_dir)
    assert [entry.name for entry in data_dir.parent.iterdir()] == ["data"]


def test_ending_what_never_began_is_no_error(data_dir: Path) -> None:
    keep.end_keeping(data_dir)


def test_what_a_crash_left_of_the_draft_is_not_taken_for_the_kept(data_dir: Path) -> None:
    draft = keep.keep_folder(data_dir).with_name("data.quorate-rewind-draft")
    draft.mkdir()
    (draft / "postgresql.conf").write_text("half")
    assert not keep.rewind_is_unfinished(data_dir)
    keep.begin_keeping(data_dir)
    assert (keep.keep_folder(data_dir) / "postgresql.conf").read_text() == "mine"


def test_a_private_folder_has_the_owner_and_at_most_the_groups_reading(data_dir: Path) -> None:
    data_dir.chmod(0o755)
    keep.make_private_folder(data_dir / "x", data_dir.stat())
    assert (data_dir / "x").stat().st_mode & 0o777 == 0o750
    assert (data_dir / "x").stat().st_uid == data_dir.stat().st_uid
