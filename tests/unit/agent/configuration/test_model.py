import inspect
import re
from pathlib import Path
from typing import get_args, get_origin

import pytest
from pydantic import BaseModel, SecretStr, ValidationError

from agent.configuration import model
from agent.configuration.document import Document, read_document
from agent.configuration.engine_section import postgres_of
from agent.configuration.loader import load
from agent.configuration.model import (
    Api,
    CheckEntry,
    Configuration,
    Defaults,
    EngineSection,
    Group,
    Login,
    Node,
    Postgres,
    Section,
    absolute,
    host_and_port,
)
from agent.configuration.wording import known_keys
from checks.loading import known_kinds, load_kind

SECTIONS = [value for value in vars(model).values() if inspect.isclass(value) and issubclass(value, Section)]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: str(section.__name__))
def test_every_section_and_key_has_its_sentence(section: type[Section]) -> None:
    assert section.__doc__
    assert [name for name, field in section.model_fields.items() if not field.description] == []


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("127.0.0.1:8480", ("127.0.0.1", 8480)),
        ("db-1.example.test:1", ("db-1.example.test", 1)),
        ("[2001:db8::1]:8480", ("2001:db8::1", 8480)),
    ],
)
def test_an_address_is_host_and_port(address: str, parts: tuple[str, int]) -> None:
    assert host_and_port(address) == parts


@pytest.mark.parametrize(
    "address", ["", "127.0.0.1", ":8480", "host:", "host:0", "host:65536", "2001:db8::1:8480", "http://host:1", "a b:1", "host:٣"]
)
def test_anything_else_is_no_address(address: str) -> None:
    with pytest.raises(ValueError, match=r"^expected HOST:PORT"):
        host_and_port(address)


def test_a_relative_path_is_refused() -> None:
    assert absolute(Path("/a")) == Path("/a")
    with pytest.raises(ValueError, match="absolute"):
        absolute(Path("a"))


def test_secrets_are_in_no_repr() -> None:
    assert "hunter2" not in repr(Login(user="a", password=SecretStr("hunter2")))
    assert "hunter2" not in repr(CheckEntry.model_validate({"type": "postgres", "dsn": "password=hunter2"}))


def test_a_configuration_does_not_change(configuration: Configuration) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        configuration.nodes["pg1"].api = "127.0.0.1:1"  # type: ignore[misc]
    assert Node().api == "127.0.0.1:8480"


# ------------------------------------------------------------------ config/quorate.yaml shows every key

FILE = Path(__file__).parents[4] / "config/quorate.yaml"


def uncommented() -> Document:
    return read_document(re.sub(r"^( *)#(?=[a-z]|- [a-z])", r"\1", FILE.read_text(encoding="utf-8"), flags=re.MULTILINE), {})


def paths(model: type[BaseModel], base: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every key of the model; `*` stands for any name."""
    found: list[tuple[str, ...]] = []
    for name, field in model.model_fields.items():
        path = (*base, name)
        found.append(path)
        if get_origin(field.annotation) is dict:
            found += paths(get_args(field.annotation)[1], (*path, "*"))
            continue
        item = get_args(field.annotation)[0] if get_origin(field.annotation) is tuple else None
        if isinstance(item, type) and issubclass(item, BaseModel):
            found += paths(item, (*path, "*"))
            continue
        for inner in (field.annotation, *get_args(field.annotation)):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                found += paths(Postgres if inner is EngineSection else inner, path)
    return found


def test_the_walk_sees_the_whole_model() -> None:
    found = paths(Configuration)
    assert ("groups", "*", "postgres", "rewind", "password_file") in found
    assert ("checks", "*", "requires") in found
    assert known_keys(Configuration, ("api", "tls")) == ("cert", "client_ca", "key")


@pytest.mark.parametrize("path", paths(Configuration), ids=".".join)
def test_every_key_is_in_the_annotated_file(path: tuple[str, ...]) -> None:
    pattern = [re.compile("[^ ]+" if step == "*" else re.escape(step)) for step in path]
    given = [place for place in uncommented().spots if len(place) == len(path)]
    assert any(all(step.fullmatch(str(part)) for step, part in zip(pattern, place, strict=True)) for place in given)


@pytest.mark.parametrize("kind", known_kinds())
def test_every_option_of_every_kind_of_check_is_in_the_annotated_file(kind: str) -> None:
    checks = uncommented().values["checks"]
    assert isinstance(checks, dict)
    given = {key for entry in checks.values() if isinstance(entry, dict) and entry["type"] == kind for key in entry}
    assert set(load_kind(kind).options_model.model_fields) <= given


def test_what_is_in_force_there_is_the_default() -> None:
    configuration = load(FILE, {})
    group = configuration.groups["pg-main"]
    default = Group.model_validate({"engine": "postgres", "members": {"pg1": {}}})
    others = {"members", "witnesses", "postgres"}
    assert group.model_dump(exclude=others) == default.model_dump(exclude=others)
    assert (configuration.defaults, configuration.api, configuration.state_dir) == (Defaults(), Api(), Path("/var/lib/quorate"))
    assert configuration.nodes["pg1"] == Node()
    plain = Postgres(data_dir=Path("/x"), socket_dir=Path("/x"))
    chosen = {"data_dir", "socket_dir", "bin_dir", "os_user", "port"}
    assert postgres_of(group, "pg1").model_dump(exclude=chosen) == plain.model_dump(exclude=chosen)
