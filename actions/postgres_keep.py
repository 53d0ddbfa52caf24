"""A member's own configuration files, kept aside while pg_rewind or a base copy brings the source's.

They are kept beside the data directory, because pg_rewind removes what the source does not have. The folder is also the mark of a rewind
that is under way: pg_rewind, ended in the middle, leaves a cluster that would start and be WRONG, and running it again does not mend that
(it may have replaced the very WAL by which it finds what to copy). So while the folder is there nothing starts, and only a base copy helps.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from pathlib import Path

from actions.postgres_files import AUTO_CONF, fsync_folder, read_bytes, write_durably

OWN_FILES = ("postgresql.conf", AUTO_CONF, "pg_hba.conf", "pg_ident.conf")


def keep_folder(data_dir: Path) -> Path:
    """`<data_dir>.quorate-rewind`, beside it."""
    return data_dir.with_name(f"{data_dir.name}.quorate-rewind")


def rewind_is_unfinished(data_dir: Path) -> bool:
    return keep_folder(data_dir).is_dir()


def begin_keeping(data_dir: Path) -> None:
    """Copy this member's own configuration files aside, durably. From now on the data directory counts as half-done."""
    folder = keep_folder(data_dir)
    draft = folder.with_name(f"{folder.name}-draft")
    shutil.rmtree(draft, ignore_errors=True)
    make_private_folder(draft, data_dir.stat())
    copy_own_files(data_dir, draft)
    draft.rename(folder)
    fsync_folder(folder.parent)


def restore_kept(data_dir: Path) -> None:
    """Put them back. A file that this member did not have does not stay either."""
    folder = keep_folder(data_dir)
    for name in OWN_FILES:
        if not os.path.lexists(folder / name):
            (data_dir / name).unlink(missing_ok=True)
    copy_own_files(folder, data_dir)


def end_keeping(data_dir: Path) -> None:
    """The data directory is whole again."""
    folder = keep_folder(data_dir)
    if folder.is_dir():
        gone = folder.with_name(f"{folder.name}-draft")
        shutil.rmtree(gone, ignore_errors=True)
        folder.rename(gone)  # at once: a half-removed folder must not be restored from
        fsync_folder(folder.parent)
        shutil.rmtree(gone)


def copy_own_files(source: Path, target: Path) -> None:
    """Copy the configuration files that stand in `source`; a link (to a place outside) is copied as a link."""
    for name in OWN_FILES:
        path, copy = source / name, target / name
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISLNK(path.lstat().st_mode):
                copy.unlink(missing_ok=True)
                copy.symlink_to(path.readlink())
            else:
                write_durably(copy, read_bytes(path, 1 << 26))


def make_private_folder(folder: Path, like: os.stat_result) -> None:
    """A folder for the same owner and mode as `like`."""
    folder.mkdir(mode=0o700)
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.geteuid() == 0:
            os.fchown(handle, like.st_uid, like.st_gid)
        os.fchmod(handle, stat.S_IMODE(like.st_mode) & 0o750)
    finally:
        os.close(handle)
