from __future__ import annotations

import base64
import json
from collections.abc import Mapping

import pytest

from agent.web import access
from agent.web.access import Access
from agent.web.tokens import Bearer, Role, Tokens
from tests.unit.agent.web.face import Face, Said, ask, serving

READER, OPERATOR = "reader-token-0123456789", "operator-token-0123456789"
WISH = {"kind": "pause", "group": "pg-main"}
PROXIED = {"X-Forwarded-For": "192.0.2.9"}
REBOUND = {"Host": "evil.example"}


def tokens() -> Tokens:
    import hashlib  # noqa: PLC0415 - beside its one use

    def known(token: str, name: str, role: Role) -> tuple[bytes, Bearer]:
        return hashlib.sha256(token.encode()).digest(), Bearer(name, frozenset({role}))

    return Tokens((known(READER, "grafana", Role.READ), known(OPERATOR, "anna", Role.OPERATOR)))


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def read(rules: Access, headers: Mapping[str, str], path: str = "/api/v1/status") -> int:
    async with serving(Face(), rules) as port:
        return (await ask(port, path, headers=headers)).status


async def write(rules: Access, headers: Mapping[str, str]) -> tuple[Said, Face]:
    face = Face()
    async with serving(face, rules) as port:
        return await ask(port, "/api/v1/intents", "POST", headers=headers, json=WISH), face


OPEN, WITH_TOKENS, PRIVATE = Access(), Access(tokens()), Access(tokens(), private=True)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:8480"}, 200),
        (PROXIED, 401),
        ({"Forwarded": "for=192.0.2.9"}, 401),
        ({"Via": "1.1 proxy"}, 401),
        (REBOUND, 401),
        ({"Origin": "http://evil.example"}, 401),
        (PROXIED | bearer(READER), 200),
        (PROXIED | bearer(OPERATOR), 200),
        (PROXIED | bearer("wrong"), 401),
        (bearer("wrong"), 401),
        (PROXIED | {"Authorization": "Basic " + base64.b64encode(f"me:{READER}".encode()).decode()}, 200),
        (PROXIED | {"Authorization": "Basic ????"}, 401),
    ],
)
async def test_reads_are_open_to_this_host_and_need_a_token_from_elsewhere(headers: dict[str, str], status: int) -> None:
    assert await read(WITH_TOKENS, headers) == status


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/groups/pg-main/leader", "/metrics"])
async def test_probes_are_open_unless_private(path: str) -> None:
    assert await read(WITH_TOKENS, PROXIED, path) == 200
    assert await read(PRIVATE, PROXIED, path) == 401
    assert await read(PRIVATE, PROXIED | bearer(READER), path) == 200
    assert await read(PRIVATE, {}, path) == 200


async def test_a_write_needs_an_operator_also_on_loopback() -> None:
    for headers, status in (({}, 401), (bearer(READER), 403), (bearer("wrong"), 401), (bearer(OPERATOR), 202)):
        said, face = await write(WITH_TOKENS, headers)
        assert said.status == status
        assert bool(face.intents) is (status == 202)
        assert ("error" in json.loads(said.body)) is (status != 202)


async def test_a_write_takes_no_password_that_a_browser_remembers() -> None:
    basic = {"Authorization": "Basic " + base64.b64encode(f"me:{OPERATOR}".encode()).decode()}
    said, _ = await write(WITH_TOKENS, basic)
    assert said.status == 401
    assert said.headers["WWW-Authenticate"] == "Bearer"


async def test_who_wrote_is_who_showed_the_token() -> None:
    _, face = await write(WITH_TOKENS, bearer(OPERATOR))
    assert [i.who for i in face.intents.values()] == ["token anna"]


async def test_without_a_tokens_file_the_agents_own_user_may_write() -> None:
    said, face = await write(OPEN, {})
    assert said.status == 202
    assert next(iter(face.intents.values())).who.startswith("uid ")


@pytest.mark.parametrize("headers", [PROXIED, REBOUND, {"Origin": "http://evil.example"}])
async def test_without_a_tokens_file_nobody_else_may(headers: dict[str, str]) -> None:
    said, face = await write(OPEN, headers)
    assert said.status == 403
    assert "tokens_file" in json.loads(said.body)["error"]
    assert not face.intents


@pytest.mark.parametrize(("uid", "sentence"), [(54321, "user 54321 may not"), (None, "cannot be told")])
async def test_another_user_of_this_host_may_not(uid: int | None, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def says(*_: object) -> int | None:
        return uid

    monkeypatch.setattr(access, "uid_of_peer", says)  # a second user is not to be had everywhere; local_peer's own test asks the kernel
    said, face = await write(OPEN, {})
    assert said.status == 403
    assert sentence in json.loads(said.body)["error"]
    assert not face.intents
