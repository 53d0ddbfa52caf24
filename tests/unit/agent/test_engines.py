from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from agent.configuration.loader import parse
from agent.engines import leader_probe_of, service_of
from agent.execution.postgres_service import PostgresService
from agent.observation.postgres_probe import PostgresProbe
from tests.unit.agent.configuration.conftest import BASE


def test_a_group_of_postgres_gets_its_service_and_its_probe() -> None:
    configuration = parse(BASE, "base.yaml", {})
    service = service_of(configuration, "pg-main", "pg2")
    assert isinstance(service, PostgresService)
    assert service.data_dir == Path("/srv/pg2")
    assert isinstance(leader_probe_of(configuration, "pg-main"), PostgresProbe)


def test_whoever_has_no_such_group_does_not_pay_for_its_client() -> None:
    ask = "import sys, agent.engines; print([name for name in ('psycopg', 'checks.postgres_client') if name in sys.modules])"
    said = subprocess.run(
        [sys.executable, "-c", ask], capture_output=True, text=True, check=True, timeout=30, cwd=Path(__file__).parents[3]
    )
    assert said.stdout == "[]\n"
