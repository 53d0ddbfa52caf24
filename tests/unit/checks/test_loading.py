from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from checks import loading
from checks.loading import KindUnavailable, UnknownKind, known_kinds, load_kind


def plug_in(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    points = [EntryPoint("plugged", value, loading.ENTRY_POINTS)]
    monkeypatch.setattr(loading, "entry_points", lambda *, group: points if group == loading.ENTRY_POINTS else [])
    known_kinds.cache_clear()


@pytest.fixture(autouse=True)
def _fresh() -> object:
    known_kinds.cache_clear()
    yield None
    known_kinds.cache_clear()


def test_kinds_are_the_files_that_define_a_check() -> None:
    assert set(known_kinds()) >= {"http", "postgres", "tcp"}
    assert not {"base", "loading", "network", "units", "postgres_client", "postgres_facts"} & set(known_kinds())


@pytest.mark.parametrize("kind", ["http", "postgres", "tcp"])
def test_a_kind_is_loaded_by_its_name(kind: str) -> None:
    assert load_kind(kind).kind == kind


def test_an_unknown_kind_is_one_sentence_with_the_nearest_name() -> None:
    with pytest.raises(UnknownKind, match=r"no check of type 'postgress'; known: .*; did you mean postgres\?$"):
        load_kind("postgress")


def test_names_and_one_kind_are_found_without_other_client_libraries() -> None:
    script = (
        "import sys; from checks.loading import known_kinds, load_kind; known_kinds();"
        "print([m for m in ('psycopg', 'aiohttp') if m in sys.modules]);"
        "load_kind('tcp'); print([m for m in ('psycopg', 'aiohttp') if m in sys.modules]);"
        "load_kind('http'); print([m for m in ('psycopg', 'aiohttp') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60).stdout
    assert said.splitlines() == ["[]", "[]", "['aiohttp']"]


def test_a_missing_client_library_is_one_sentence() -> None:
    script = (
        "import sys; sys.modules['psycopg'] = None; from checks.loading import load_kind\n"
        "try: load_kind('postgres')\n"
        "except LookupError as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60).stdout
    assert said.strip() == "checks of type 'postgres' cannot be used: the Python package psycopg is not installed"


def test_a_plugin_is_found_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, "checks.tcp:TcpCheck")
    assert "plugged" in known_kinds()
    assert load_kind("plugged").__name__ == "TcpCheck"


@pytest.mark.parametrize("value", ["no_such_package:Check", "checks.tcp:TcpOptions", "checks.tcp:Missing"])
def test_a_broken_plugin_is_one_sentence(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    plug_in(monkeypatch, value)
    with pytest.raises(KindUnavailable, match=r"^checks of type 'plugged' cannot be used: .*"):
        load_kind("plugged")
