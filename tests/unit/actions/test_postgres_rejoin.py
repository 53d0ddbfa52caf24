from pathlib import Path

import pytest

from actions import postgres_rejoin as rejoin
from actions.base import ActionError
from actions.postgres_files import is_initialised


def cluster(folder: Path, content: str) -> None:
    for name in ("global/pg_control", "base/1/1", "PG_VERSION"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    cluster(folder, "old")
    (folder / "gone").mkdir()
    (folder / "link").symlink_to("/nowhere")
    (folder / "lost+found").mkdir()
    staging = rejoin.make_staging(folder, folder.stat().st_uid)
    cluster(staging, "new")
    (staging / rejoin.COMPLETE).touch()
    return folder


def test_a_copy_is_made_beside_the_data_directory(data_dir: Path) -> None:
    assert rejoin.staging_folder(data_dir) == data_dir.with_name("data.quorate-copy")
    assert rejoin.staging_folder(data_dir).stat().st_mode & 0o027 == 0


def test_a_mount_point_gets_its_copy_inside() -> None:
    assert rejoin.staging_folder(Path("/proc")) == Path("/proc/quorate-copy")


def test_a_swap_leaves_only_the_new(data_dir: Path) -> None:
    inode = data_dir.stat().st_ino
    rejoin.swap(data_dir)
    assert sorted(path.name for path in data_dir.iterdir()) == ["PG_VERSION", "base", "global", "lost+found"]
    assert (data_dir / "global" / "pg_control").read_text() == "new"
    assert data_dir.stat().st_ino == inode
    assert not rejoin.staging_folder(data_dir).exists()


def test_without_a_complete_copy_nothing_is_touched(data_dir: Path) -> None:
    (rejoin.staging_folder(data_dir) / rejoin.COMPLETE).unlink()
    with pytest.raises(ActionError, match="nothing is removed"):
        rejoin.swap(data_dir)
    assert (data_dir / "base" / "1" / "1").read_text() == "old"
    assert not rejoin.swap_is_unfinished(data_dir)


@pytest.mark.parametrize("method", ["unlink", "rename", "iterdir"])
@pytest.mark.parametrize("after", range(9))
def test_a_swap_that_breaks_off_is_gone_on_with(data_dir: Path, monkeypatch: pytest.MonkeyPatch, method: str, after: int) -> None:
    true, left = getattr(Path, method), after

    def counted(self: Path, *arguments: object, **more: object) -> object:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return true(self, *arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Path, method, counted)
        try:
            rejoin.swap(data_dir)
            broke = False
        except KeyboardInterrupt:
            broke = True
    if broke and not is_initialised(data_dir):
        assert rejoin.swap_is_unfinished(data_dir)
        rejoin.swap(data_dir)
    elif broke:
        assert (data_dir / "global" / "pg_control").read_text() == ("old" if (data_dir / "gone").exists() else "new")
        return
    assert (data_dir / "global" / "pg_control").read_text() == "new"
    assert not (data_dir / "gone").exists()
