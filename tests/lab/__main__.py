"""The lab's command line: `python -m tests.lab run SCENARIO.yaml [--output json] [--keep]` and `repeat N SCENARIO.yaml...`.

Progress goes to standard error, the result to standard output, last. Exit: 0 ok, 1 an expectation failed, 64 a bad file or wrong usage, 70
the lab itself failed, 130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import statistics
import subprocess
import sys
import threading
from pathlib import Path
from typing import NoReturn

from tests.lab import running, scenario
from tests.lab.network import LabFailed
from tests.lab.priority import share_of_the_processor

EX_OK, EX_FAILED, EX_USAGE, EX_LAB, EX_INTERRUPTED = 0, 1, 64, 70, 130


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message}", file=sys.stderr)
        sys.exit(EX_USAGE)


def main() -> int:
    parser = _Parser(prog="python -m tests.lab", description=__doc__.splitlines()[0] if __doc__ else None)
    words = parser.add_subparsers(dest="word", required=True)
    once = words.add_parser("run", help="run one scenario")
    once.add_argument("file", type=Path)
    once.add_argument("--output", choices=("text", "json"), default="text")
    once.add_argument("--keep", action="store_true", help="leave the lab up afterwards until Ctrl-C")
    once.add_argument("--logs", type=Path, help="copy all logs to this folder at the end")
    often = words.add_parser("repeat", help="run scenarios several times; each run and the medians")
    often.add_argument("times", type=int)
    often.add_argument("files", type=Path, nargs="+")
    often.add_argument("--output", choices=("text", "json"), default="text")
    arguments = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):  # a shell starts what runs in its background with SIGINT ignored
        signal.signal(number, _interrupt)
    try:
        with share_of_the_processor():
            return run_once(arguments) if arguments.word == "run" else repeat(arguments)
    except scenario.BadScenario as error:
        print(error, file=sys.stderr)
        return EX_USAGE
    except LabFailed as error:
        print(f"the lab failed: {error}", file=sys.stderr)
        return EX_LAB
    except (OSError, subprocess.SubprocessError) as error:
        print(f"the lab failed: {type(error).__name__}: {error}", file=sys.stderr)
        return EX_LAB
    except KeyboardInterrupt:
        return EX_INTERRUPTED


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def run_once(arguments: argparse.Namespace) -> int:
    """One scenario; its exit code."""
    read = scenario.load(arguments.file)
    keep = threading.Event() if arguments.keep else None
    outcome = running.run(read, arguments.file.stem, progress, keep, arguments.logs)
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps(outcome.as_json()) if arguments.output == "json" else in_words(outcome), flush=True)
    return EX_OK if outcome.ok else EX_FAILED


def in_words(outcome: running.Outcome) -> str:
    """For a person: the timeline, then the figures."""
    lines = [f"{entry['at_s']:9.3f}  {entry['what']}" for entry in outcome.timeline]
    figures = {key: value for key, value in outcome.as_json().items() if key not in {"timeline", "failed"}}
    lines += ["", *(f"{key:<20}{value}" for key, value in figures.items())]
    lines += [f"FAILED: {sentence}" for sentence in outcome.failed]
    return "\n".join(lines)


def repeat(arguments: argparse.Namespace) -> int:
    """Each scenario several times; prints each run and, for each scenario, the medians."""
    rows: list[dict[str, object]] = []
    worst = EX_OK
    for file in arguments.files:
        read = scenario.load(file)
        outcomes: list[running.Outcome] = []
        for number in range(1, arguments.times + 1):
            outcome = running.run(read, file.stem, lambda _line: None)
            outcomes.append(outcome)
            worst = worst if outcome.ok else EX_FAILED
            progress(_row(f"{file.stem} {number}", outcome))
        rows.append(_summary(file.stem, outcomes))
    print(json.dumps(rows) if arguments.output == "json" else "\n".join(_line(row) for row in rows), flush=True)
    return worst


def _row(name: str, outcome: running.Outcome) -> str:
    verdict = "ok" if outcome.ok else f"FAILED: {'; '.join(outcome.failed)}"
    figures = f"outage {outcome.outage_s:7.3f} s  overlap {outcome.writable_overlap_s:g}  lost {outcome.acknowledged_lost}"
    return f"{name:<40}{figures}  Consul {outcome.consul_outage_s:6.3f} s  changes {outcome.leader_changes}  {verdict}"


def _summary(name: str, outcomes: list[running.Outcome]) -> dict[str, object]:
    outages = [outcome.outage_s for outcome in outcomes]
    return {
        "scenario": name,
        "runs": [{key: value for key, value in outcome.as_json().items() if key != "timeline"} for outcome in outcomes],
        "outage_s": outages,
        "outage_s_median": round(statistics.median(outages), 3),
        "outage_s_max": max(outages),
        "consul_outage_s_median": round(statistics.median(outcome.consul_outage_s for outcome in outcomes), 3),
        "writable_overlap_s_max": max(outcome.writable_overlap_s for outcome in outcomes),
        "acknowledged_lost": [outcome.acknowledged_lost for outcome in outcomes],
        "ok": all(outcome.ok for outcome in outcomes),
    }


def _line(row: dict[str, object]) -> str:
    return (
        f"{row['scenario']:<40}outage median {row['outage_s_median']} s, worst {row['outage_s_max']} s, ok {row['ok']}  {row['outage_s']}"
    )


if __name__ == "__main__":
    sys.exit(main())
