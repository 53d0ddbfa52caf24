"""`make bench`: quorate beside its peers, the same faults on the same stage in the same run.

    python -m tests.bench run [--runs 5] [--only quorate,patroni-fastest] [--faults service_killed,...] [--side-by-side 2]
                              [--folder DIR] [--output table|json] [--renew-readme]
    python -m tests.bench table [--folder DIR]      # the table of what is kept, without measuring

Progress is on standard error, the result on standard output. Each run is kept in DIR at once, so an interrupted bench goes on; a new DIR
begins anew. With --renew-readme the table also goes into README.md beside this file, between its marks. Exit code: 0 all was measured,
1 something could not be, 64 a word is wrong, 70 the stage cannot be had, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

from tests.bench import machine, parts, results, table
from tests.bench.contenders import CONTENDERS, Contender
from tests.bench.drivers import driver_of
from tests.bench.faults import Fault
from tests.bench.results import Run
from tests.bench.run import run
from tests.install.parts import CannotObtain, cache_bin
from tests.lab.network import LabFailed, why_impossible

README = Path(__file__).with_name("README.md")
TRIES = 2
"""A run whose stage did not come to stand is tried once more."""
EX_USAGE, EX_SOFTWARE, EX_INTERRUPTED = 64, 70, 130


def main() -> int:
    """Run or show; the exit code."""
    arguments = _arguments()
    contenders = [CONTENDERS[name] for name in arguments.only]
    if arguments.what == "table":
        return _report(contenders, arguments, "")
    if (impossible := why_impossible()) is not None:
        say(f"the bench cannot run: {impossible}")
        return EX_SOFTWARE
    try:
        missing = parts.prepare(frozenset(contender.product for contender in contenders), say)
    except CannotObtain as error:
        say(f"the bench cannot run: {error}")
        return EX_SOFTWARE
    for each in missing.values():
        say(f"LEFT OUT: {each.part.left_out}: {each.cause} ({each.part.how})")
    failed = _measure([contender for contender in contenders if contender.product not in missing], arguments)
    exit_code = _report(contenders, arguments, "; ".join(f"{each.part.name} was left out: {each.cause}" for each in missing.values()))
    return exit_code or int(bool(failed or missing))


def say(line: str) -> None:
    """Progress, for the person who waits."""
    sys.stderr.write(f"bench: {line}\n")
    sys.stderr.flush()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--runs", type=int, default=5, help="runs a cell (default 5)")
    parser.add_argument("--only", type=_names(CONTENDERS), default=list(CONTENDERS), help=f"some of {', '.join(CONTENDERS)}")
    words = [fault.value for fault in Fault]
    parser.add_argument("--faults", type=_names(words), default=words, help=f"some of {', '.join(words)}")
    parser.add_argument("--side-by-side", type=int, default=1, help="runs at once (default 1: nothing beside it)")
    parser.add_argument("--folder", type=Path, default=cache_bin().parent / "bench", help="where runs are kept")
    parser.add_argument("--renew-readme", action="store_true", help="write the table into tests/bench/README.md, too")
    parser.add_argument("--output", choices=("table", "json"), default="table")
    try:
        return parser.parse_args()
    except SystemExit as error:
        sys.exit(EX_USAGE if error.code else 0)


def _names(known: Iterable[str]) -> Callable[[str], list[str]]:
    choices = list(known)

    def names(text: str) -> list[str]:
        wanted = text.split(",")
        if unknown := [name for name in wanted if name not in choices]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: unknown; expected some of {', '.join(choices)}")
        return wanted

    return names


# ------------------------------------------------------------------ measuring


def _measure(contenders: Sequence[Contender], arguments: argparse.Namespace) -> int:
    """Fill every cell up to `--runs`; how many runs could not be had."""
    done = results.by_cell(results.kept(arguments.folder))
    faults = [Fault(word) for word in arguments.faults]
    todo = [
        (contender, fault)
        for number in range(arguments.runs)
        for contender in contenders
        for fault in faults
        if (contender.uses_consul or not fault.needs_consul) and number >= len(done.get((contender.name, fault), ()))
    ]
    say(f"{len(todo)} runs to do, {sum(map(len, done.values()))} kept in {arguments.folder}")
    failed = 0
    with ThreadPoolExecutor(arguments.side_by_side) as pool:
        futures = [pool.submit(_try, contender, fault) for contender, fault in todo]
        try:
            for number, future in enumerate(as_completed(futures), start=1):
                outcome = future.result()
                if isinstance(outcome, Run):
                    results.keep(arguments.folder, outcome)
                else:
                    failed += 1
                say(f"{number}/{len(todo)} {outcome if isinstance(outcome, str) else _sentence(outcome)}")
        except KeyboardInterrupt:
            say("interrupted; what was measured is kept")
            sys.stdout.flush()
            os._exit(EX_INTERRUPTED)  # the runs under way would take minutes to end; their hosts die with this process
    return failed


def _try(contender: Contender, fault: Fault) -> Run | str:
    """A run, or the sentence why there is none."""
    words = ""
    for _ in range(TRIES):
        began_s = time.monotonic()
        try:
            return run(contender, fault, driver_of)
        except (LabFailed, AssertionError, OSError) as error:
            words = f"{contender.name} {fault.value}: not measured after {time.monotonic() - began_s:.0f} s: {str(error)[:800]}"
    return words


def _sentence(run_: Run) -> str:
    how = f"outage {run_.outage_s:.2f} s" if run_.recovered else f"no end within {run_.outage_s:.0f} s"
    more = " and more" if run_.overlap_went_on else ""
    figures = f"{how}, overlap {run_.overlap_s:.2f} s{more}, lost {run_.lost} of {run_.acknowledged}, load {run_.load}"
    return f"{run_.contender} {run_.fault.value}: {figures}"


# ------------------------------------------------------------------ telling


def _report(contenders: Sequence[Contender], arguments: argparse.Namespace, left_out: str) -> int:
    """Print the table and renew the README with it."""
    runs = [each for each in results.kept(arguments.folder) if each.contender in CONTENDERS]
    if arguments.output == "json":
        wanted = {contender.name for contender in contenders}
        _print(json.dumps([{**asdict(each), "fault": each.fault.value} for each in runs if each.contender in wanted], indent=1))
        return 0
    faults = list(Fault)
    rows = table.rows(CONTENDERS.values(), faults, results.by_cell(runs))
    _print(table.markdown(rows, faults))
    if arguments.renew_readme:
        section = table.section(rows, faults, machine.circumstances(runs), machine.notes(runs, left_out))
        README.write_text(table.replace_section(README.read_text(encoding="utf-8"), section), encoding="utf-8")
        say(f"{README} holds it")
    return 0


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
