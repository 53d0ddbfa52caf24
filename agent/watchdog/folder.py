"""The node's state folder as the watchdog uses it: one watchdog a folder (flock), its socket, and the groups it guards.

Deadlines are NOT kept here: after a start nothing is armed. Only the groups are, so that a watchdog that was killed and started again holds
their services at once, before any agent comes. The file is written whole and is durable before the registration is answered.
"""
# pathlib would cost 1 MB of locked memory:
# ruff: noqa: PTH116, PTH123

from __future__ import annotations

import fcntl
import json
import os
import socket
import stat

from agent.watchdog.deadline import Target
from agent.watchdog.protocol import GROUPS, LOCK, MOST_GROUPS, SOCKET, Malformed, Register, check_registration

LARGEST_GROUPS_FILE = 1 << 20


class FolderError(Exception):
    """The folder cannot be used. Its text is one sentence for a person."""


class Folder:
    """An opened, locked state folder. Raises FolderError when that is impossible."""

    def __init__(self, path: str) -> None:
        self.path = os.path.realpath(path)
        try:
            self._handle = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise FolderError(f"the state folder {path} cannot be opened: {error.strerror}") from None
        found = os.fstat(self._handle)
        if found.st_uid not in {0, os.geteuid()} or found.st_mode & stat.S_IWOTH:
            raise FolderError(f"the state folder {path} belongs to another user or can be written by everybody: that one could kill here")
        self._lock = self._take_lock()

    def _take_lock(self) -> int:
        try:
            lock = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=self._handle)
        except OSError as error:
            raise FolderError(f"{self.path}/{LOCK} cannot be opened: {error.strerror}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            first = os.read(lock, 20).decode("ascii", "replace").strip() or "unknown"
            raise FolderError(f"another watchdog (pid {first}) guards {self.path}") from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, b"%d\n" % os.getpid(), 0)
        return lock

    def is_ours(self) -> bool:
        """Whether the lock file is still the one we hold: a folder that was removed or replaced can no longer be reached by any agent."""
        try:
            return os.path.samestat(os.stat(f"{self.path}/{LOCK}"), os.fstat(self._lock))
        except OSError:
            return False

    def identity_of(self, name: str) -> tuple[int, int] | None:
        """Device and inode of a file in the folder."""
        try:
            found = os.stat(name, dir_fd=self._handle)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def listen(self) -> socket.socket:
        """The socket, open to our own user and root only. Bound through /proc, because a socket's path has room for 107 bytes only."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        before = os.umask(0o177)
        try:
            if self.identity_of(SOCKET) is not None:
                os.unlink(SOCKET, dir_fd=self._handle)
            listener.bind(f"/proc/self/fd/{self._handle}/{SOCKET}")
            listener.listen(16)
        except OSError as error:
            listener.close()
            raise FolderError(f"{self.path}/{SOCKET} cannot be made: {error.strerror}") from None
        finally:
            os.umask(before)
        return listener

    def read_groups(self) -> dict[str, Target]:
        """The groups that were registered before. Raises FolderError when the file cannot be believed; a missing one is none."""
        try:
            handle = os.open(GROUPS, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=self._handle)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise FolderError(f"{self.path}/{GROUPS} cannot be read: {error.strerror}") from None
        with open(handle, "rb") as file:
            data = file.read(LARGEST_GROUPS_FILE)
        try:
            return dict(_group_of(entry) for entry in json.loads(data)["groups"][:MOST_GROUPS])
        except (ValueError, TypeError, KeyError, RecursionError):
            raise FolderError(f"{self.path}/{GROUPS} holds no list of groups") from None

    def keep_groups(self, groups: dict[str, Target]) -> None:
        """Write the file anew and see it on disk. Raises OSError; then the old file stands."""
        data = json.dumps({"groups": [{"group": name, **target._asdict()} for name, target in groups.items()]}).encode()
        new = GROUPS + ".new"
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=self._handle)
        with open(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(handle)
        os.rename(new, GROUPS, src_dir_fd=self._handle, dst_dir_fd=self._handle)
        os.fsync(self._handle)

    def close(self) -> None:
        """Give the lock back."""
        os.close(self._lock)
        os.close(self._handle)


def _group_of(entry: dict[str, object]) -> tuple[str, Target]:
    name, data_dir, uid, budget_s = entry["group"], entry["data_dir"], entry["uid"], entry["fence_budget_s"]
    if not (isinstance(name, str) and isinstance(data_dir, str) and isinstance(uid, int) and isinstance(budget_s, int | float)):
        raise Malformed("a field does not hold what belongs there")
    addresses = entry.get("addresses", [])
    if not isinstance(addresses, list) or not all(isinstance(text, str) for text in addresses):
        raise Malformed("the addresses are no list of texts")
    check_registration(Register(name, data_dir, uid, budget_s, tuple(addresses)))
    return name, Target(data_dir, uid, float(budget_s), tuple(addresses))
