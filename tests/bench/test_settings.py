"""What the peers read is what the row says, and kept runs come back whole. Starts nothing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.bench import patroni, repmgr, results
from tests.bench.contenders import CONTENDERS, PatroniSettings, Product, QuorateSettings, RepmgrSettings
from tests.bench.faults import HEADINGS, Fault
from tests.bench.test_table import RUN
from tests.lab.network import Host

HOST = cast("Host", SimpleNamespace(name="h2", address="192.0.2.12"))
SETTINGS_OF = {Product.QUORATE: QuorateSettings, Product.PATRONI: PatroniSettings, Product.REPMGR: RepmgrSettings}


@pytest.mark.parametrize("name", CONTENDERS)
def test_a_contender_has_the_settings_of_its_product(name: str) -> None:
    assert isinstance(CONTENDERS[name].settings, SETTINGS_OF[CONTENDERS[name].product])
    assert CONTENDERS[name].name == name


def test_every_fault_has_its_column() -> None:
    assert set(HEADINGS) == set(Fault)


@pytest.mark.parametrize("contender", [each for each in CONTENDERS.values() if each.product is Product.PATRONI], ids=lambda each: each.name)
def test_patroni_keeps_its_own_rule_of_times(contender: Any) -> None:
    """Patroni silently changes what breaks it: ttl >= 20 and loop_wait + 2 * retry_timeout <= ttl."""
    settings = contender.settings
    assert settings.ttl_s >= 20
    assert settings.loop_wait_s + 2 * settings.retry_timeout_s <= settings.ttl_s


def test_patroni_reads_what_the_row_says() -> None:
    tree = cast("Any", patroni.configuration(HOST, PatroniSettings(20, 1, 3, 0, ("serfHealth",)), Path("/x/data"), Path("/pg")))
    dynamic = tree["bootstrap"]["dcs"]
    assert (dynamic["ttl"], dynamic["loop_wait"], dynamic["retry_timeout"], dynamic["primary_start_timeout"]) == (20, 1, 3, 0)
    assert tree["consul"] == {"host": "192.0.2.12:8500", "checks": ["serfHealth"]}
    assert tree["postgresql"]["listen"] == "192.0.2.12:5432"
    assert "listen_addresses" not in dynamic["postgresql"]["parameters"], "Patroni sets it"


def test_repmgr_reads_what_the_row_says() -> None:
    text = repmgr.configuration(HOST, RepmgrSettings(1, 2, 3), Path("/x/data"), Path("/pg"))
    lines = dict(line.split("=", 1) for line in text.splitlines())
    assert lines["monitor_interval_secs"] == "'1'"
    assert lines["reconnect_attempts"] == "'2'"
    assert lines["reconnect_interval"] == "'3'"
    assert lines["node_id"] == "'12'"
    assert lines["failover"] == "'automatic'"


def test_a_kept_run_comes_back_whole(tmp_path: Path) -> None:
    results.keep(tmp_path, RUN)
    results.keep(tmp_path, RUN)
    assert results.kept(tmp_path) == [RUN, RUN]


def test_a_line_cut_short_is_no_run(tmp_path: Path) -> None:
    results.keep(tmp_path, RUN)
    with (tmp_path / results.FILE).open("a", encoding="utf-8") as file:
        file.write('{"contender": "quo')
    assert results.kept(tmp_path) == [RUN]


def test_a_new_folder_holds_nothing(tmp_path: Path) -> None:
    assert results.kept(tmp_path / "none") == []
