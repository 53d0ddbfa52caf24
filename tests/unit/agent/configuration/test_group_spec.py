import pytest

from agent.configuration.group_spec import group_spec_of, node_named
from agent.configuration.loader import parse
from agent.configuration.model import Configuration
from agent.coordination.lease import Terms
from agent.decision.view import Candidacy, Durability, FenceLayer, OnCrash
from agent.errors import ConfigurationError, UsageError


def test_a_group_becomes_what_the_core_reads(configuration: Configuration) -> None:
    spec = group_spec_of(configuration, "pg-main")
    assert (spec.name, spec.engine, spec.voters) == ("pg-main", "postgres", ("pg1", "pg2"))
    assert spec.members == {"pg1": Candidacy(100), "pg2": Candidacy(90)}
    assert (spec.terms, spec.renew_s, spec.patience_s) == (Terms(5.0, 0.5), 1.0, 10.0)
    assert (spec.durability, spec.on_crash, spec.max_lag_bytes) == (Durability.ASYNC, OnCrash.FAILOVER, 1 << 20)
    assert (spec.restart_timeout_s, spec.sync_timeout_s, spec.cooldown_s) == (10.0, 3.0, 60.0)
    assert spec.required_fences == {FenceLayer.SEAL, FenceLayer.WATCHDOG}


@pytest.mark.parametrize(("written", "layers"), [("[]", set()), ("[seal, watchdog]", {FenceLayer.SEAL, FenceLayer.WATCHDOG})])
def test_a_list_of_fences_is_exactly_these(base: str, written: str, layers: set[FenceLayer]) -> None:
    text = base.replace("engine: postgres", f"engine: postgres\n    fence: {written}")
    assert group_spec_of(parse(text, "f", {}), "pg-main").required_fences == layers


def test_an_unknown_group_names_the_nearest(configuration: Configuration) -> None:
    with pytest.raises(UsageError, match=r"there is no group pgmain \(did you mean pg-main\?\)"):
        group_spec_of(configuration, "pgmain")


@pytest.mark.parametrize(
    ("given", "environment", "hostname", "node"),
    [
        ("pg1", {"QUORATE_NODE": "pg2"}, "pg2", "pg1"),
        (None, {"QUORATE_NODE": "pg2"}, "pg1", "pg2"),
        (None, {"QUORATE_NODE": ""}, "pg1", "pg1"),
        (None, {}, "pg1", "pg1"),
        (None, {}, "PG2.example.test", "pg2"),
    ],
)
def test_a_node_is_named_by_option_environment_or_host(
    configuration: Configuration, given: str | None, environment: dict[str, str], hostname: str, node: str
) -> None:
    assert node_named(configuration, given, environment, hostname) == node


def test_a_wrong_option_is_wrong_usage(configuration: Configuration) -> None:
    with pytest.raises(UsageError, match=r"--node gp1: no such node \(did you mean pg1\?\)"):
        node_named(configuration, "gp1", {}, "pg1")


def test_a_wrong_variable_or_host_is_a_wrong_configuration(configuration: Configuration) -> None:
    with pytest.raises(ConfigurationError, match=r"QUORATE_NODE=zzz: no such node; there are pg1, pg2"):
        node_named(configuration, None, {"QUORATE_NODE": "zzz"}, "pg1")
    with pytest.raises(ConfigurationError, match=r"host name zzz: no such node; there are pg1, pg2; say which with --node or QUORATE_NODE"):
        node_named(configuration, None, {}, "zzz")
