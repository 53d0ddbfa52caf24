"""Postgres' files as far as quorate reads or writes them, durably: the seal, the role settings, history files and the passfile.

Every write is a new file that is fsynced, renamed over the old one, and its folder fsynced: after a crash there is the old or the new,
never a half. Nothing here follows a symbolic link at the end of a path, because the agent may be root and the folder is another user's.
It never touches a line that is not quorate's. All functions block; callers on the event loop use a thread.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import threading
from collections.abc import Mapping
from pathlib import Path

from actions.base import ActionError
from actions.postgres_instance import parse_lsn

SEAL = "standby.signal"
SEAL_POLL_S = 0.0005
AUTO_CONF = "postgresql.auto.conf"
ROLE_SETTINGS = ("primary_conninfo", "primary_slot_name", "synchronous_standby_names")
PLACEHOLDER = "# quorate: this number is taken by a promotion on another node; it is no parent of anything here\n"
MAX_PLACEHOLDERS = 1000

_WRITING = threading.Lock()
_HISTORY = re.compile(r"^([0-9A-F]{8})\.history$")
_SEGMENT = re.compile(r"^([0-9A-F]{8})[0-9A-F]{16}(\.partial)?$")
_SETTING = re.compile(r"^\s*([A-Za-z_][A-Za-z0-9_.]*)(?:\s*=\s*|\s+)(.*)$")
_HISTORY_LINE = re.compile(r"^\s*(\d+)\s+([0-9A-Fa-f]+/[0-9A-Fa-f]+)")


# ------------------------------------------------------------------ durable writing


def fsync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_durably(path: Path, content: bytes) -> None:
    """Replace `path` at once and for good, mode 0600, owned by the folder's owner."""
    with _WRITING:
        draft = path.with_name(f".{path.name}.quorate")
        draft.unlink(missing_ok=True)
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            give_to_owner_of(path.parent, handle)
            with open(handle, "wb", closefd=False) as file:
                file.write(content)
            os.fsync(handle)
        finally:
            os.close(handle)
        draft.rename(path)
        fsync_folder(path.parent)


def give_to_owner_of(folder: Path, handle: int) -> None:
    """Root's new files belong to whoever the folder belongs to."""
    if os.geteuid() == 0:
        owner = folder.stat()
        os.fchown(handle, owner.st_uid, owner.st_gid)


def read_bytes(path: Path, limit_bytes: int = 1 << 20) -> bytes:
    """The file's beginning; FileNotFoundError when it is not there, ActionError when it is no plain file."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ActionError(f"{path} is no plain file")
        with open(handle, "rb", closefd=False) as file:
            return file.read(limit_bytes)
    finally:
        os.close(handle)


# ------------------------------------------------------------------ the seal


def is_sealed(data_dir: Path) -> bool:
    """Whether a start of this data directory, by anybody, comes up read-only."""
    return (data_dir / SEAL).is_file()


def seal(data_dir: Path) -> None:
    """Write standby.signal, durably. Writing it again does no harm. It is empty, so it is there at once, and made durable after."""
    handle = os.open(data_dir / SEAL, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        give_to_owner_of(data_dir, handle)
        os.fsync(handle)
    finally:
        os.close(handle)
    fsync_folder(data_dir)


def seal_again(data_dir: Path, stop: threading.Event) -> None:
    """Watch the seal until `stop`, and put it back as soon as it is gone: a promotion removes it, once, before it takes the first write."""
    while is_sealed(data_dir):
        if stop.wait(SEAL_POLL_S):
            return
    seal(data_dir)


def is_initialised(data_dir: Path) -> bool:
    """Whether there is a cluster that can be started: its control file is written last, and removed first."""
    return (data_dir / "global" / "pg_control").is_file()


# ------------------------------------------------------------------ the role settings


def read_role_settings(data_dir: Path) -> dict[str, str]:
    """The role settings that stand in postgresql.auto.conf (the last one wins); a missing one is empty."""
    found = dict.fromkeys(ROLE_SETTINGS, "")
    for line in _lines(data_dir / AUTO_CONF):
        name = _setting_name(line)
        if name in found:
            found[name] = _unquote(_value_text(line))
    return found


def write_role_settings(data_dir: Path, settings: Mapping[str, str]) -> None:
    """Set these role settings while the server is down. Every other line stays as it is; duplicates of these are collapsed."""
    unknown = set(settings) - set(ROLE_SETTINGS)
    assert not unknown, f"not quorate's to set: {unknown}"
    kept = [line for line in _lines(data_dir / AUTO_CONF) if _setting_name(line) not in settings]
    ours = [f"{name} = '{_quote(value)}'" for name, value in settings.items()]
    write_durably(data_dir / AUTO_CONF, ("\n".join([*kept, *ours]) + "\n").encode("utf-8", "surrogateescape"))


def _lines(path: Path) -> list[str]:
    try:
        return read_bytes(path).decode("utf-8", "surrogateescape").splitlines()
    except FileNotFoundError:
        return []


def _setting_name(line: str) -> str | None:
    match = _SETTING.match(line)
    return match[1].lower() if match else None


def _value_text(line: str) -> str:
    match = _SETTING.match(line)
    return match[2] if match else ""


def _quote(value: str) -> str:
    if "\n" in value or "\0" in value:
        raise ActionError("a setting cannot hold a line break")
    return value.replace("\\", "\\\\").replace("'", "''")


def _unquote(text: str) -> str:
    quoted = re.match(r"'((?:[^'\\]|''|\\.)*)'", text)
    if quoted is None:
        return text.partition("#")[0].strip()
    return re.sub(r"''|\\(.)", lambda match: match[1] or "'", quoted[1])


# ------------------------------------------------------------------ timelines


def newest_timeline(data_dir: Path) -> int:
    """The timeline that this instance wrote, received or replayed last: the highest number among its WAL segments. 0: there are none.

    Says the truth at once, where pg_control lags until the next checkpoint. A history file alone proves nothing: it may be a future that
    never came.
    """
    return max((int(match[1], 16) for name in _names(data_dir / "pg_wal") if (match := _SEGMENT.match(name))), default=0)


def history_path(data_dir: Path, timeline: int) -> Path:
    return data_dir / "pg_wal" / f"{timeline:08X}.history"


def known_histories(data_dir: Path) -> tuple[int, ...]:
    """The timelines that have a history file here, sorted."""
    return tuple(sorted(int(match[1], 16) for name in _names(data_dir / "pg_wal") if (match := _HISTORY.match(name))))


def read_history(data_dir: Path, timeline: int) -> tuple[tuple[int, int], ...]:
    """The ancestors of `timeline`, oldest first, each with the LSN where its child began; empty when nothing is known of it."""
    try:
        return parse_history(read_bytes(history_path(data_dir, timeline)))
    except FileNotFoundError:
        return ()


def parse_history(content: bytes) -> tuple[tuple[int, int], ...]:
    """(timeline, switch LSN) of a history file's lines."""
    matches = (_HISTORY_LINE.match(line) for line in content.decode("utf-8", "replace").splitlines())
    return tuple((int(match[1]), parse_lsn(match[2])) for match in matches if match)


def place_placeholders(data_dir: Path, highest: int) -> tuple[int, ...]:
    """Make every timeline number up to `highest` that is unknown here count as taken, so that a promotion takes a fresh one.

    Postgres looks for the next free number by the mere presence of history files, without a gap. The TRUE file of somebody else's timeline
    must not be put there: a standby that has not reached its switch point makes it the parent of the next promotion, and writes a history
    whose LSNs go back (seen on 15 and 16). A file that names no parent is refused as "not a child", which is what is wanted of a RUNNING
    standby. A start below such a file would wait for ever for WAL of that number: so Start and Follow remove it (`remove_placeholders`).
    """
    own = newest_timeline(data_dir)
    if highest - own > MAX_PLACEHOLDERS:
        raise ActionError(f"timeline {highest} is too far above the own timeline {own}")
    known = set(known_histories(data_dir))
    missing = tuple(number for number in range(own + 1, highest + 1) if number not in known)
    for number in missing:
        write_durably(history_path(data_dir, number), PLACEHOLDER.encode())
    return missing


def remove_placeholders(data_dir: Path) -> tuple[int, ...]:
    """Forget the placeholders above the own timeline: before a start, and before following (the true files would never be fetched)."""
    own = newest_timeline(data_dir)
    ours = tuple(number for number in known_histories(data_dir) if number > own and is_placeholder(data_dir, number))
    for number in ours:
        with contextlib.suppress(FileNotFoundError):
            history_path(data_dir, number).unlink()
    return ours


def is_placeholder(data_dir: Path, timeline: int) -> bool:
    try:
        return read_bytes(history_path(data_dir, timeline)) == PLACEHOLDER.encode()
    except FileNotFoundError:
        return False


def unreached_futures(data_dir: Path, timeline: int, lsn: int) -> tuple[int, ...]:
    """Timelines whose true history is here, but which leave `timeline` beyond `lsn`: this instance never came to where they began.

    Its startup process may have made one of them its target already, and would name it as the parent of the next promotion.
    """
    later = (number for number in known_histories(data_dir) if number > timeline)
    return tuple(number for number in later if any(tli == timeline and switch > lsn for tli, switch in read_history(data_dir, number)))


def forget_futures(data_dir: Path, futures: tuple[int, ...]) -> None:
    """Remove the history files of futures that never came. The server has to be down."""
    for number in futures:
        history_path(data_dir, number).unlink(missing_ok=True)
    fsync_folder(data_dir / "pg_wal")


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 (names are all that is wanted, of what may be many files)
    except FileNotFoundError:
        return []
