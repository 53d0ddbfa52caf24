"""The file's JSON Schema, for editors: every key with its sentence, and for each kind of check its own options.

Generated from the models and never written by hand; config/schema.json is this, and a test compares the two. What a schema cannot say
(references, relations, the environment) is said by `quorate config check`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

import checks.units
from agent.configuration.model import Configuration, Postgres
from agent.configuration.units import DURATION_PATTERN, SIZE_PATTERN, format_duration, format_size
from checks.base import AnyCheck
from checks.loading import KindUnavailable, known_kinds, load_kind

DIALECT = "https://json-schema.org/draft/2020-12/schema"
REFERENCE = "#/$defs/{model}"

_DURATION = {"type": "string", "pattern": DURATION_PATTERN, "examples": ["500ms", "5s", "2m"]}
_SIZE = {"type": "string", "pattern": SIZE_PATTERN, "examples": ["64kB", "16MiB", "1GiB"]}
_WRITTEN_AS: Mapping[Callable[..., object], JsonSchemaValue] = {
    checks.units.parse_duration_s: _DURATION,
    checks.units.parse_size_bytes: _SIZE,
}

Schema = dict[str, Any]


class _Generator(GenerateJsonSchema):
    """Pydantic's generator, which also knows how checks write durations and sizes."""

    def function_before_schema(self, schema: core_schema.BeforeValidatorFunctionSchema) -> JsonSchemaValue:
        written = _WRITTEN_AS.get(schema["function"]["function"])
        return dict(written) if written is not None else super().function_before_schema(schema)

    def field_title_should_be_set(self, _schema: object) -> bool:
        """Never: the key says its name."""
        return False


def schema() -> Schema:
    """The whole file's JSON Schema. The same for every run of one version with the same plugins and client libraries."""
    whole = _model_schema(Configuration)
    definitions = cast("Schema", whole["$defs"])
    definitions |= _definitions(Postgres, "Postgres")
    engine_keys = definitions.pop("Postgres")["properties"]
    definitions["EngineSection"] |= {"properties": engine_keys, "additionalProperties": False}
    member = definitions["Member"]
    member |= {"properties": {**member["properties"], **engine_keys}, "additionalProperties": False}
    common = definitions["CheckEntry"]
    definitions["CheckEntry"] = {
        "description": common["description"],
        "type": "object",
        "required": ["type"],
        "properties": {"type": {"enum": list(known_kinds()), "description": common["properties"]["type"]["description"]}},
        "allOf": [_add_kind(kind, loaded, common, definitions) for kind in known_kinds() if (loaded := _loaded(kind)) is not None],
    }
    return {"$schema": DIALECT, **whole, "title": "quorate.yaml"}


def _loaded(kind: str) -> type[AnyCheck] | None:
    """The kind, or None where its client library is not installed: then nothing is known of its keys, and any are taken."""
    try:
        return load_kind(kind)
    except KindUnavailable:
        return None


def _add_kind(kind: str, loaded: type[AnyCheck], common: Schema, definitions: Schema) -> Schema:
    """Define the entry of one kind: the common keys, with its own levels, and its own; return the branch that chooses it."""
    definitions |= _definitions(loaded.options_model, f"check_{kind}")
    entry = definitions[f"check_{kind}"]
    properties = {**common["properties"], **entry.get("properties", {})}
    properties["type"] = {"const": kind}
    levels = sorted(level.value for level in loaded.levels)
    properties["level"] = {**_without(common["properties"]["level"], "$ref"), "enum": levels}
    entry |= {
        "properties": properties,
        "required": ["type", *entry.get("required", ())],
        "additionalProperties": False,
        "title": f"type: {kind}",
    }
    chosen = {"properties": {"type": {"const": kind}}, "required": ["type"]}
    return {"if": chosen, "then": {"$ref": REFERENCE.format(model=f"check_{kind}")}}


def _definitions(model: type[BaseModel], name: str) -> Schema:
    """The model's own definitions, itself among them as `name`; those of its parts keep their names below it where they might clash."""
    own = _model_schema(model, prefix="" if name == model.__name__ else f"{name}_")
    parts = cast("Schema", own.pop("$defs", {}))
    return {**parts, name: own}


def _model_schema(model: type[BaseModel], prefix: str = "") -> Schema:
    raw = model.model_json_schema(schema_generator=_Generator, ref_template=REFERENCE.replace("{model}", prefix + "{model}"))
    if "$defs" in raw:
        raw["$defs"] = {prefix + name: value for name, value in raw["$defs"].items()}
    return cast("Schema", _for_editors(raw))


def _for_editors(value: Any) -> Any:
    """The file has no null: a key that is not given is left out. Defaults stand as they would be written."""
    if isinstance(value, list):
        return [_for_editors(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {key: _for_editors(item) for key, item in value.items() if key not in ("gt", "ge") and item is not None}
    choices = [choice for choice in kept.get("anyOf", ()) if choice != {"type": "null"}]
    if len(choices) == 1:
        kept = {**choices[0], **_without(kept, "anyOf")}
    elif choices:
        kept["anyOf"] = choices
    if "patternProperties" in kept:
        kept["additionalProperties"] = False
    if isinstance(kept.get("default"), (int, float)) and kept.get("pattern") in (DURATION_PATTERN, SIZE_PATTERN):
        kept["default"] = (format_duration if kept["pattern"] == DURATION_PATTERN else format_size)(kept["default"])
    return kept


def _without(value: Schema, key: str) -> Schema:
    return {name: item for name, item in value.items() if name != key}
