"""The way in: `quorate …` and `python -m agent …`.

`watchdog` is run without importing anything else of the agent: it is locked in memory and must stay small. The agent starts it as
`python -I -S …/agent/__main__.py watchdog …` (no site-packages, nothing of the user's environment), hence the path below.
"""

from __future__ import annotations

import sys

if not __package__:
    sys.path.append(__file__.rpartition("/agent/")[0])


def main() -> int:
    """Run the command line; its exit code."""
    argv = sys.argv[1:]
    if argv[:1] == ["watchdog"]:
        from agent.watchdog.watchdog import main as watchdog  # noqa: PLC0415 - see above

        return watchdog(argv[1:])
    from agent.cli.main import run  # noqa: PLC0415 - see above

    return run(argv)


if __name__ == "__main__":
    sys.exit(main())
