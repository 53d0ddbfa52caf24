"""How the agent writes to its own disk: whole files or nothing, durable when that was promised, one sentence when the disk will not.

Everything here blocks; call it in a `Worker`.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from agent.errors import QuorateError


class StorageError(QuorateError):
    """The agent's own disk did not keep what must be kept. Whatever depends on it must not be sent."""


def private_folder(path: Path) -> Path:
    """Make the folder for this user only (mode 0700) unless it is there. Raises `StorageError`."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise failed(path, error) from error
    return path


def replace_file(path: Path, content: bytes, durable: bool) -> None:
    """Put `content` at `path` at once and whole; `durable`: it outlives a power cut when this returns. Raises `StorageError`."""
    draft = path.with_name(f"{path.name}.new")
    try:
        fd = os.open(draft, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            write_all(fd, content)
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        draft.replace(path)
        if durable:
            sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise failed(path, error) from error


def write_all(fd: int, content: bytes) -> None:
    """Write all of it: the system may take it in parts."""
    left = memoryview(content)
    while left:
        left = left[os.write(fd, left) :]


def sync_folder(folder: Path) -> None:
    """Make the folder's names durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def failed(path: Path, error: OSError) -> StorageError:
    """The error as one sentence."""
    return StorageError(f"{path} cannot be written: {error.strerror or error}")
