import pytest
from psycopg.conninfo import conninfo_to_dict

from actions.base import ActionError
from actions.postgres_instance import (
    Login,
    PostgresInstance,
    Upstream,
    format_lsn,
    parse_lsn,
    passfile_content,
    slot_name,
    sync_setting,
)
from tests.unit.actions.examples import instance

UPSTREAM = Upstream("n2", "192.0.2.12", 5433)


def test_passwords_are_in_no_repr() -> None:
    shown = repr(instance(admin=Login("postgres", "hunter2"), replication=Login("replicator", "hunter3")))
    assert "hunter" not in shown


def test_primary_conninfo_names_the_passfile_and_no_password() -> None:
    parameters = conninfo_to_dict(instance(replication=Login("re'plicator", "hunter2")).primary_conninfo(UPSTREAM))
    assert parameters["user"] == "re'plicator"
    assert (parameters["host"], parameters["port"], parameters["application_name"]) == ("192.0.2.12", "5433", "n1")
    assert parameters["passfile"] == "/data/quorate.pgpass"
    assert "password" not in parameters
    assert "dbname" not in parameters


def test_without_a_password_there_is_no_passfile() -> None:
    assert "passfile" not in conninfo_to_dict(instance(replication=Login("r")).primary_conninfo(UPSTREAM))


def test_a_standby_says_itself_how_soon_its_sender_gives_it_up() -> None:
    own = instance(replication=Login("r", "hunter2"), sender_timeout_s=6.0)
    parameters = conninfo_to_dict(own.primary_conninfo(UPSTREAM))
    assert (parameters["options"], parameters["passfile"]) == ("-c wal_sender_timeout=6000", "/data/quorate.pgpass")
    assert "options" not in conninfo_to_dict(instance().primary_conninfo(UPSTREAM))
    assert "options" not in conninfo_to_dict(own.remote_conninfo(UPSTREAM, own.replication, None)), "no other connection waits for replies"


def test_local_conninfo_is_the_socket() -> None:
    parameters = conninfo_to_dict(instance().local_conninfo)
    assert (parameters["host"], parameters["port"], parameters["dbname"]) == ("/run/pg", "5432", "postgres")


@pytest.mark.parametrize(
    ("names", "setting"),
    [((), ""), (("b",), 'FIRST 1 ("b")'), (("b", "c"), 'FIRST 2 ("b", "c")'), (('a"b',), 'FIRST 1 ("a""b")')],
)
def test_sync_setting(names: tuple[str, ...], setting: str) -> None:
    assert sync_setting(names) == setting


def test_lsn_both_ways() -> None:
    assert parse_lsn("1/0") == 1 << 32
    assert format_lsn((26 << 32) + 0xBEEF) == "1A/BEEF"
    assert parse_lsn(format_lsn(0x123456789A)) == 0x123456789A


def test_passfile_escapes_what_separates() -> None:
    assert passfile_content(Login("us:er", "p\\w:d")) == b"*:*:*:us\\:er:p\\\\w\\:d\n"
    with pytest.raises(ActionError, match="line break"):
        passfile_content(Login("u", "a\nb"))


def test_slot_names_are_injective_short_and_plain() -> None:
    names = ["a-b", "a_b", "a--b", "a_-b", "a_db", "x" * 63, "x" * 62 + "y", "x" * 62]
    slots = {slot_name(name) for name in names}
    assert len(slots) == len(names)
    assert all(len(slot) <= 63 and slot.replace("_", "").isalnum() and slot == slot.lower() for slot in slots)


def test_an_instance_without_os_user_is_run_by_whoever_asks() -> None:
    made: PostgresInstance = instance(os_user="root")
    assert made.owner_uid == 0
