from pathlib import Path

import pytest
import yaml

from agent.configuration.loader import load, parse
from agent.configuration.shown import shown

CONFIG = Path(__file__).parents[4] / "config"
EXAMPLES = [CONFIG / "quorate.yaml", *sorted((CONFIG / "examples").glob("*/quorate.yaml"))]


@pytest.mark.parametrize("file", EXAMPLES, ids=str)
def test_what_is_shown_is_a_file_that_means_the_same(file: Path) -> None:
    tree = shown(load(file, {}))
    assert shown(parse(yaml.safe_dump(tree, sort_keys=False), "shown", {})) == tree


def test_defaults_are_filled_in_and_secrets_are_not(base: str) -> None:
    text = base.replace("{socket_dir: /run/postgresql}", "{socket_dir: /run/postgresql, monitor: {user: eye, password: hunter2}}")
    checks = "defaults: {every: 7s}\nchecks:\n  pg: {type: postgres, dsn: host=/run, password: hunter2, fall: 1}\n"
    checks += "  web: {type: http, url: 'http://127.0.0.1/', headers: {X-Any: hunter2}}\n"
    tree = shown(parse(text + checks, "f", {}))
    assert "hunter2" not in str(tree)
    assert str(tree).count("********") == 4
    expected = {"every": "7s", "timeout": "2s", "rise": 2, "fall": 1, "slow_after": "5s", "max_lag": "16MiB"}
    assert isinstance(tree["checks"], dict)
    assert isinstance(tree["checks"]["pg"], dict)
    assert expected.items() <= tree["checks"]["pg"].items()
    group = tree["groups"]["pg-main"]  # type: ignore[index,call-overload]
    assert group["lease"] == {"ttl": "5s", "renew": "1s", "fence_budget": "500ms", "failsafe": True}  # type: ignore[index,call-overload]
    assert group["members"]["pg1"]["start_timeout"] == "1m"  # type: ignore[index,call-overload]
