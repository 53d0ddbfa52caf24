"""Ledger and sampler see what they are there for: a lost row, a second writer, their own lateness."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from agent.demo.throwaway_postgres import PostgresServer, free_port, server_folder
from tests.lab import measures
from tests.lab.client import Plan
from tests.lab.template import copy_template
from tests.polling import eventually

ROOT = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def stand_alone(bin_dir: Path) -> Iterator[PostgresServer]:
    """A primary of the template, by itself."""
    folder = server_folder()
    server = PostgresServer(folder, free_port(), bin_dir)
    with server:
        copy_template(bin_dir, server.data_dir)
        (server.data_dir / "standby.signal").unlink()
        server.write_config()
        server.start()
        yield server
    shutil.rmtree(folder)


@dataclass
class Running:
    """A client at work."""

    folder: Path
    process: subprocess.Popen[bytes]

    def text(self, name: str) -> str:
        return (self.folder / name).read_text()

    def ledger(self) -> list[measures.Acknowledged]:
        return measures.read_ledger(self.text("ledger"))

    def samples(self) -> measures.Samples:
        return measures.read_samples(self.text("samples"))

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(10) == 0


@contextlib.contextmanager
def client(folder: Path, plan: Plan) -> Iterator[Running]:
    (folder / "plan.json").write_text(json.dumps(asdict(plan)))
    command = [sys.executable, "-m", "tests.lab.client", str(folder / "plan.json")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, cwd=ROOT)
    try:
        eventually((folder / "notes").exists, 10, "the client runs")
        yield Running(folder, process)
    finally:
        process.kill()
        assert process.stdin is not None
        process.stdin.close()
        process.wait(10)


def conninfo(server: PostgresServer, options: str = "") -> str:
    return f"{server.dsn('plain')} sslmode=disable gssencmode=disable" + (f" options='{options}'" if options else "")


def local(server: PostgresServer) -> str:
    return conninfo(server, "-c synchronous_commit=local")


def test_acknowledged_rows_are_in_the_ledger_and_in_the_table(tmp_path: Path, postgres_bin: Path) -> None:
    with stand_alone(postgres_bin) as server, client(tmp_path, Plan(str(tmp_path), (conninfo(server),))) as running:
        eventually(lambda: len(running.ledger()) >= 20, 10, "acknowledged rows")
        running.stop()
        present = frozenset(int(line) for line in server.psql("SELECT id FROM lab_ledger").split())
        assert measures.lost(running.ledger(), present) == []
        assert [row.identity for row in running.ledger()] == sorted(row.identity for row in running.ledger())


def test_a_lost_row_is_seen(tmp_path: Path, postgres_bin: Path) -> None:
    """What an asynchronous failover does: the old primary acknowledged rows that the new one never got."""
    with stand_alone(postgres_bin) as old, stand_alone(postgres_bin) as new:
        with client(tmp_path, Plan(str(tmp_path), (conninfo(old), conninfo(new)))) as running:
            eventually(lambda: len(running.ledger()) >= 5, 10, "rows on the old primary")
            old.kill()
            killed_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            eventually(lambda: running.ledger()[-1].sent_ns > killed_ns, 10, "rows on the new primary")
            running.stop()
        present = frozenset(int(line) for line in new.psql("SELECT id FROM lab_ledger").split())
        ledger = running.ledger()
        lost = measures.lost(ledger, present)
        assert lost == [row.identity for row in ledger[: len(lost)]]
        assert 5 <= len(lost) < len(ledger)
        assert 0 < measures.outage_s(ledger, ledger[len(lost) - 1].at_ns - 1, ledger[-1].at_ns) < 5


def test_a_commit_with_a_warning_is_not_acknowledged(tmp_path: Path, postgres_bin: Path) -> None:
    with stand_alone(postgres_bin) as server:
        server.psql("CREATE FUNCTION warn() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING 'beware'; RETURN NEW; END $$")
        server.psql("CREATE TRIGGER warn BEFORE INSERT ON lab_ledger FOR EACH ROW WHEN (NEW.id % 2 = 0) EXECUTE FUNCTION warn()")
        with client(tmp_path, Plan(str(tmp_path), (conninfo(server),))) as running:
            eventually(lambda: len(running.ledger()) >= 5, 10, "rows without a warning")
        assert all(row.identity % 2 for row in running.ledger())
        assert "WARNING: beware" in running.text("notes")


def test_a_commit_that_waits_for_nobody_is_an_outage(tmp_path: Path, postgres_bin: Path) -> None:
    with stand_alone(postgres_bin) as server, client(tmp_path, Plan(str(tmp_path), (conninfo(server),), {"a": local(server)})) as running:
        eventually(lambda: len(running.ledger()) >= 5, 10, "rows")
        server.psql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        server.psql("SELECT pg_reload_conf()")
        eventually(lambda: "no answer while asking" in running.text("notes"), 10, "the statement's 200 ms are over")
        before = len(running.samples().spans["a"])
        count = running.text("samples").count("took a")
        eventually(lambda: running.text("samples").count("took a") > count + 10, 10, "who takes a write is writable, acknowledged or not")
        assert len(running.samples().spans["a"]) == before
        running.stop()


def test_a_second_writer_made_on_purpose_is_an_overlap(tmp_path: Path, postgres_bin: Path) -> None:
    with ExitStack() as stack:
        one, other = stack.enter_context(stand_alone(postgres_bin)), stack.enter_context(stand_alone(postgres_bin))
        running = stack.enter_context(client(tmp_path, Plan(str(tmp_path), members={"one": local(one), "other": local(other)})))
        eventually(lambda: measures.overlap_s(running.samples()) > 0.3, 10, "two primaries for 0.3 s")
        one.kill()
        eventually(lambda: "ended one" in running.text("samples"), 10, "one of them is gone")
        seen = measures.overlap_s(running.samples())
        count = running.text("samples").count("took other")
        eventually(lambda: running.text("samples").count("took other") > count + 10, 10, "the other goes on")
        assert measures.overlap_s(running.samples()) == seen
        running.stop()
    assert measures.blind_s(running.samples()) < 1


def test_a_standby_is_not_writable_and_leaves_no_errors_in_its_log(tmp_path: Path, postgres_bin: Path) -> None:
    with stand_alone(postgres_bin) as server:
        server.stop()
        (server.data_dir / "standby.signal").touch()
        server.start()
        with client(tmp_path, Plan(str(tmp_path), members={"a": local(server)})) as running:
            eventually(lambda: int(server.psql("SELECT count(*) FROM pg_stat_activity WHERE usename = 'plain'")) == 1, 10, "it is asked")
            running.stop()
        assert running.samples().spans == {}
        assert "ERROR" not in server.log()


def test_a_sampler_that_was_late_says_so(tmp_path: Path, postgres_bin: Path) -> None:
    with stand_alone(postgres_bin) as server, client(tmp_path, Plan(str(tmp_path), members={"a": local(server)})) as running:
        eventually(lambda: running.text("samples").count("took") > 5, 10, "samples")
        os.kill(running.process.pid, signal.SIGSTOP)
        time.sleep(0.5)
        os.kill(running.process.pid, signal.SIGCONT)
        eventually(lambda: measures.blind_s(running.samples()) > 0.3, 10, "it was blind for half a second")
        running.stop()


@pytest.mark.parametrize("stopped_ms", [0, 50])
def test_one_that_was_not_late_does_not(tmp_path: Path, stopped_ms: int) -> None:
    samples = measures.read_samples(f"late {stopped_ms * 1_000_000} 1\n")
    assert measures.blind_s(samples) == 0
    assert not list(tmp_path.iterdir())
