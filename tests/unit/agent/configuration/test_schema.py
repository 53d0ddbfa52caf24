import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agent.configuration.model import Configuration, Postgres
from agent.configuration.schema import schema
from checks.loading import known_kinds, load_kind

COMMITTED = Path(__file__).parents[4] / "config/schema.json"


def walk(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from walk(item)


def test_the_committed_schema_is_the_generated_one() -> None:
    assert json.loads(COMMITTED.read_text(encoding="utf-8")) == schema(), "renew it: quorate config schema > config/schema.json"


def test_each_reference_has_its_definition_and_each_definition_is_used() -> None:
    whole = schema()
    used = {part["$ref"].removeprefix("#/$defs/") for part in walk(whole) if "$ref" in part}
    assert used <= set(whole["$defs"])


def test_it_knows_every_key_of_the_model_and_refuses_others() -> None:
    whole = schema()
    assert set(whole["properties"]) == set(Configuration.model_fields)
    assert set(Postgres.model_fields) <= set(whole["$defs"]["Member"]["properties"])
    assert set(whole["$defs"]["EngineSection"]["properties"]) == set(Postgres.model_fields)
    assert all(part["additionalProperties"] is False for part in walk(whole) if "properties" in part and "additionalProperties" in part)


def test_the_options_of_a_check_go_by_its_type() -> None:
    whole = schema()
    entry = whole["$defs"]["CheckEntry"]
    assert entry["properties"]["type"]["enum"] == list(known_kinds())
    for kind, branch in zip(known_kinds(), entry["allOf"], strict=True):
        assert branch["if"]["properties"]["type"] == {"const": kind}
        definition = whole["$defs"][branch["then"]["$ref"].removeprefix("#/$defs/")]
        assert {"type", "level", "on", "every", "requires", *load_kind(kind).options_model.model_fields} == set(
            definition["properties"]
        ) - {
            "timeout",
            "rise",
            "fall",
        }
        assert set(definition["properties"]["level"]["enum"]) == {level.value for level in load_kind(kind).levels}


def test_durations_and_sizes_are_text_with_a_unit_and_so_are_their_defaults() -> None:
    whole = schema()
    lease = whole["$defs"]["Lease"]["properties"]
    assert lease["ttl"]["type"] == "string"
    assert lease["ttl"]["default"] == "5s"
    assert whole["$defs"]["Group"]["properties"]["max_lag"]["default"] == "1MiB"
    assert whole["$defs"]["check_postgres"]["properties"]["slow_after"]["default"] == "5s"
    for part in walk(whole):
        if isinstance(part.get("default"), str) and "pattern" in part:
            assert re.search(part["pattern"], part["default"])


def test_nothing_in_it_is_null() -> None:
    assert "null" not in json.dumps(schema()).lower()
