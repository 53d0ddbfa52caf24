"""Everything that CHANGES a Postgres instance, by its processes, its files and SQL. Start reading here; each action says what it promises.

| action | wanted state | where |
| --- | --- | --- |
| Start | up and read-only: sealed before it is started | postgres_lifecycle |
| Stop | down, in order if it can be, by force if it must | postgres_lifecycle |
| Fence | no process of it left; no SQL, no program | postgres_lifecycle |
| Seal | a restart by anybody comes up read-only | postgres_lifecycle |
| StopReceiving | follows nobody, and its position is final | postgres_replication |
| Follow | streams from its upstream | postgres_replication |
| Promote | takes writes, sealed, its sync names in force: the ONLY one that makes it writable | postgres_promotion |
| SetSyncNames | commits wait for these, proven | postgres_promotion |
| Rewind, Copy | a diverged member streams again | postgres_rejoin |

Only quorate's role settings are touched (primary_conninfo, primary_slot_name, synchronous_standby_names, standby.signal). Facts are read
elsewhere (checks); of a server that is down, by `read_offline`.
"""

from __future__ import annotations

from actions.postgres_action import KillTree, PostgresAction
from actions.postgres_files import is_sealed, newest_timeline, read_history, read_role_settings
from actions.postgres_instance import Login, PostgresInstance, Postmaster, Upstream, format_lsn, parse_lsn, sync_setting
from actions.postgres_lifecycle import Fence, Seal, Start, Stop, Stopped
from actions.postgres_offline import ControlState, OfflineFacts, read_offline
from actions.postgres_process import current_postmaster, processes_of
from actions.postgres_promotion import KnownPromotion, Promote, Promoted, SetSyncNames, SyncEffect
from actions.postgres_rejoin import Copy, Rewind
from actions.postgres_replication import FinalPosition, Follow, StopReceiving
from actions.postgres_session import PostgresSession

__all__ = [
    # settings
    "Login",
    "PostgresInstance",
    "PostgresSession",
    "Postmaster",
    "Upstream",
    "KillTree",
    # actions and their results
    "PostgresAction",
    "Start",
    "Stop",
    "Stopped",
    "Fence",
    "Seal",
    "StopReceiving",
    "FinalPosition",
    "Follow",
    "Promote",
    "Promoted",
    "KnownPromotion",
    "SetSyncNames",
    "SyncEffect",
    "Rewind",
    "Copy",
    # facts without a server
    "ControlState",
    "OfflineFacts",
    "read_offline",
    "read_history",
    "read_role_settings",
    "is_sealed",
    "newest_timeline",
    "current_postmaster",
    "processes_of",
    # spelling
    "format_lsn",
    "parse_lsn",
    "sync_setting",
]
