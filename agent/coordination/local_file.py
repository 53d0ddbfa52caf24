"""The file of the local coordinator: made whole or not at all, never on a network, and noticed when it is taken away.

Never opens the file by hand while SQLite has it open: closing any descriptor of it would drop all of SQLite's locks in this process.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from agent.disk import sync_folder
from agent.errors import CoordinationError, CoordinationRefused

APPLICATION = 0x71756F72
"""Marks an SQLite file as a quorate store ("quor")."""
LAYOUT = 1

SCHEMA = f"""
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {LAYOUT};
CREATE TABLE store (one INTEGER PRIMARY KEY CHECK (one = 1), identity TEXT NOT NULL, idx INTEGER NOT NULL, floor INTEGER NOT NULL);
CREATE TABLE entries (key TEXT PRIMARY KEY, value BLOB NOT NULL, idx INTEGER NOT NULL, session TEXT) WITHOUT ROWID;
CREATE TABLE tombstones (key TEXT PRIMARY KEY, idx INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE sessions (id TEXT PRIMARY KEY, name TEXT NOT NULL, pid INTEGER NOT NULL, started INTEGER NOT NULL, boot TEXT NOT NULL,
                       namespace TEXT NOT NULL) WITHOUT ROWID;
"""

NETWORK_FILE_SYSTEMS = {
    0x6969: "nfs",
    0x517B: "smb",
    0xFF534D42: "cifs",
    0xFE534D42: "smb2",
    0x65735546: "fuse",
    0x01021997: "9p",
    0x00C36400: "ceph",
    0x5346414F: "afs",
    0x6B414653: "afs",
    0x73757245: "coda",
    0x7461636F: "ocfs2",
    0x01161970: "gfs2",
    0x0BD00BD0: "lustre",
    0x47504653: "gpfs",
    0x786F4256: "vboxsf",
    0xBACBACBC: "vmhgfs",
}
"""File systems whose locks or shared memory another host may not see, by the f_type of statfs(2)."""

BUSY, LOCKED, PERM, READONLY, IOERR, CORRUPT, FULL, CANTOPEN, NOTADB = 5, 6, 3, 8, 10, 11, 13, 14, 26
"""SQLite's primary result codes."""


def sentence(error: sqlite3.Error, path: Path) -> str:
    """What went wrong, for a person."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in {BUSY, LOCKED}:
        return f"another process has locked {path} for longer than the time allowed"
    if code == FULL:
        return f"the disk of {path} is full"
    if code in {PERM, READONLY, CANTOPEN}:
        return f"{path} cannot be opened for writing by this user"
    if code in {CORRUPT, NOTADB}:
        return f"{path} is damaged or no quorate store ({error})"
    if code == IOERR:
        return f"the disk of {path} failed ({getattr(error, 'sqlite_errorname', error)})"
    return f"{path}: {error}"


def refuse_network(folder: Path) -> None:
    """Raise `CoordinationRefused` when `folder` lies on a file system that other hosts may share."""
    kind = NETWORK_FILE_SYSTEMS.get(file_system(folder))
    if kind is not None:
        raise CoordinationRefused(f"{folder} lies on a network file system ({kind}): the local coordinator needs a disk of this host")


def file_system(folder: Path) -> int:
    """The f_type of statfs(2). Raises OSError."""
    buffer = ctypes.create_string_buffer(512)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.statfs(os.fsencode(folder), buffer) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(folder))
    return ctypes.c_long.from_buffer(buffer).value & 0xFFFFFFFF


def make_if_absent(path: Path, identity: str, name: str) -> None:
    """Make the store under a name of its own and link it in: whoever comes second finds a whole one. Raises `CoordinationRefused`."""
    draft = path.with_name(f".{path.name}.{name}.new")
    try:
        refuse_network(path.parent)
        if os.path.lexists(path):
            return
        os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        try:
            _fill(draft, identity)
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)
        finally:
            draft.unlink()
        sync_folder(path.parent)
    except OSError as error:
        raise CoordinationRefused(f"{path} cannot be made: {error.strerror or error}") from error
    except sqlite3.Error as error:
        raise CoordinationRefused(sentence(error, path)) from error


def _fill(draft: Path, identity: str) -> None:
    db = sqlite3.connect(draft, isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.executescript(f"BEGIN; {SCHEMA}")
        db.execute("INSERT INTO store VALUES (1, ?, 1, 1)", (identity,))
        db.execute("COMMIT")
    finally:
        db.close()


def connect(path: Path, busy_s: float) -> sqlite3.Connection:
    """A connection to an existing store, usable from any one thread at a time. Raises `CoordinationRefused`."""
    db = None
    try:
        uri = f"file:{quote(str(path))}?mode=rw"
        db = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=busy_s)
        marks = (db.execute("PRAGMA application_id").fetchone()[0], db.execute("PRAGMA user_version").fetchone()[0])
        if marks != (APPLICATION, LAYOUT):
            raise CoordinationRefused(f"{path} is no quorate store, or of another version: nothing was changed in it")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA journal_size_limit = 4194304")
        db.execute("SELECT idx FROM store").fetchone()
    except BaseException as error:
        if db is not None:
            db.close()
        if isinstance(error, sqlite3.Error):
            raise CoordinationRefused(sentence(error, path)) from error
        raise
    return db


@dataclass(frozen=True, slots=True)
class FileGuard:
    """Knows the very files that were opened: the store, its write-ahead log and its shared index."""

    path: Path
    inodes: tuple[tuple[int, int] | None, ...]

    @classmethod
    def of(cls, path: Path) -> FileGuard:
        """Call it while a connection that has read is open: from then on the three files stay."""
        return cls(path, _inodes(path))

    def check(self) -> None:
        """Raise `CoordinationError` when the path shows another file, or none: else two stores would stand side by side."""
        if _inodes(self.path) != self.inodes:
            raise CoordinationError(f"{self.path} was deleted or replaced while in use: restart every agent of this store")


def _inodes(path: Path) -> tuple[tuple[int, int] | None, ...]:
    return tuple(_inode(f"{path}{suffix}") for suffix in ("", "-wal", "-shm"))


def _inode(path: str) -> tuple[int, int] | None:
    try:
        stat = os.stat(path)  # noqa: PTH116 - fifty times a second: a Path costs more than the call
    except OSError:
        return None
    return stat.st_dev, stat.st_ino
