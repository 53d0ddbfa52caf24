"""The errors that quorate raises on purpose. A leaf is named by what the caller can do about it.

QuorateError
├── ConfigurationError      the user's file is wrong: show its problems, exit 78, change nothing
├── UsageError              the command line is wrong: say it, exit 64
├── CoordinationError       the coordinator gave no answer: the outcome is UNKNOWN, read back and judge
│   └── CoordinationRefused     it answered no (a bad token, a network file system): the outcome is known
├── ActionError             an action could not be done; its sentence says why; the next turn decides again
│   ├── ActionTimeout           its deadline passed; whatever was begun was ended
│   └── ActionTooLate           its lease ended before its irreversible step: nothing was done
├── PeerError               another agent gave no answer that can be trusted: it has promised nothing as far as anybody knows
├── WatchdogError           the watchdog did not acknowledge: no deadline moved
└── AlreadyRunning          another agent uses this node name or state folder: the second one refuses to start
"""

from __future__ import annotations


class QuorateError(Exception):
    """Root of all errors raised on purpose. Its text is one sentence for a person."""


class ConfigurationError(QuorateError):
    """The configuration is wrong. `problems` holds one line each: `file:line: path: what was expected`."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class UsageError(QuorateError):
    """The command was called wrongly."""


class CoordinationError(QuorateError):
    """The coordinator did not answer in time or the answer was lost. Whether it acted is unknown."""


class CoordinationRefused(CoordinationError):
    """The coordinator answered that it will not. Nothing was changed."""


class PeerError(QuorateError):
    """Another agent did not answer in time, or its answer proves nothing."""


class WatchdogError(QuorateError):
    """The watchdog did not acknowledge. The deadline that it acknowledged last is the one in force."""


class AlreadyRunning(QuorateError):
    """Another agent holds this node's state folder."""
