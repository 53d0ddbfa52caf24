from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from agent.cli import api_client
from agent.cli.api_client import ApiClient, client_here, client_of
from agent.cli.options import NobodyAnswered, Refused, load_configuration
from agent.configuration.model import Api, ApiTls
from agent.errors import ConfigurationError, CoordinationError, CoordinationRefused
from agent.web.access import Access
from tests.unit.agent.cli.conftest import running, write_config
from tests.unit.agent.web.face import Face
from tests.unit.agent.web.test_access import OPERATOR, tokens

WISH = {"kind": "pause", "group": "pg-main"}


def client(*ports: int, token: str | None = None) -> ApiClient:
    return ApiClient(tuple((f"n{number}", "127.0.0.1", port) for number, port in enumerate(ports, start=1)), None, token)


@contextmanager
def saying(data: bytes, then_drips: bytes = b"") -> Iterator[int]:
    """A server that reads a request, says this, and then drips until the test is over, or says nothing more."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def talk() -> None:
            taken, _ = listener.accept()
            with taken, contextlib.suppress(OSError):
                taken.recv(65536)
                taken.sendall(data)
                while not over.wait(0.05 if then_drips else 30):
                    taken.sendall(then_drips)

        thread = threading.Thread(target=talk, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        over.set()


def test_the_first_that_answers(closed_port: int) -> None:
    with running(Face()) as port:
        answer = client(closed_port, port).get("/livez")
    assert (answer.node, answer.status) == ("n2", 200)


def test_nobody_answers(closed_port: int) -> None:
    with pytest.raises(NobodyAnswered, match=r"no agent answers \(n1: Connection refused; n2: Connection refused\)"):
        client(closed_port, closed_port).get("/livez")
    with pytest.raises(NobodyAnswered, match="n1: Connection refused"):
        client(closed_port).post("/api/v1/intents", WISH)


def test_an_agent_that_says_no_is_believed_when_no_other_says_yes() -> None:
    with running(Face()) as port, pytest.raises(Refused, match="n1 says: there is no such group"):
        client(port).get("/api/v1/explain/nope")


def test_an_agent_that_cannot_say_is_passed_over() -> None:
    with running(Face(error=CoordinationError("the answer was lost"))) as ailing, running(Face()) as well:
        assert client(ailing, well).get("/api/v1/history/pg-main").node == "n2"
        with pytest.raises(NobodyAnswered, match="n1: the answer was lost"):
            client(ailing).get("/api/v1/history/pg-main")


def test_a_write_goes_to_one_node_only(closed_port: int) -> None:
    first, second = Face(), Face()
    with running(first) as one, running(second) as two:
        assert client(closed_port, one, two).post("/api/v1/intents", WISH).node == "n2"
    assert (len(first.intents), len(second.intents)) == (1, 0)


def test_a_write_that_was_refused_or_is_unknown_is_not_sent_again() -> None:
    other = Face()
    with running(Face(error=CoordinationRefused("too many"))) as one, running(other) as two, pytest.raises(Refused, match="too many"):
        client(one, two).post("/api/v1/intents", WISH)
    with saying(b"") as silent, running(other) as two, pytest.MonkeyPatch.context() as patch:
        patch.setattr(api_client, "ANSWER_S", 0.3)
        with pytest.raises(NobodyAnswered, match="it may have been done"):
            client(silent, two).post("/api/v1/intents", WISH)
    assert not other.intents


@pytest.mark.timeout(30)
@pytest.mark.parametrize("drips", [b"", b"x"])
@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n{", b"HTTP/1.1 200 OK\r\nX-"])
def test_a_server_that_drips_holds_nobody(data: bytes, drips: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_client, "ANSWER_S", 0.3)
    with saying(data, drips) as port, pytest.raises(NobodyAnswered, match="no answer"):
        client(port).get("/livez")


def test_garbage_is_no_answer() -> None:
    with saying(b"\x00\xff garbage\r\n\r\n") as port, pytest.raises(NobodyAnswered):
        client(port).get("/livez")


def test_an_answer_without_end_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_client, "MAX_ANSWER_BYTES", 10)
    with running(Face()) as port, pytest.raises(NobodyAnswered, match="too long"):
        client(port).get("/api/v1/status")


def test_the_token_is_shown(tmp_path: Path, closed_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    token_file = tmp_path / "token"
    token_file.write_text(f"{OPERATOR}\n")
    with running(Face(), Access(tokens())) as port:
        configuration = load_configuration(write_config(tmp_path, port, closed_port, closed_port))
        with pytest.raises(Refused, match="a token with the role operator is needed"):
            client_of(configuration, "pg1", None).post("/api/v1/intents", WISH)
        assert client_of(configuration, "pg1", token_file).post("/api/v1/intents", WISH).status == 202
        monkeypatch.setenv("QUORATE_TOKEN", OPERATOR)
        assert client_of(configuration, "pg1", None).post("/api/v1/intents", WISH).status == 202


def test_the_own_node_is_asked_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configuration = load_configuration(write_config(tmp_path, 1, 2, 3))
    assert [a[0] for a in client_here(configuration, "pg2", None).addresses] == ["pg2", "pg1"]
    monkeypatch.setenv("QUORATE_NODE", "a-desk")
    assert [a[0] for a in client_here(configuration, None, None).addresses] == ["pg1", "pg2"], "a desk is no node"


def test_the_agents_own_certificate_is_trusted_and_no_other(tmp_path: Path) -> None:
    certificate = trustme.CA().issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    configuration = load_configuration(write_config(tmp_path, 1, 2, 3))
    with_tls = configuration.model_copy(update={"api": Api(tls=ApiTls(cert=tmp_path / "cert.pem", key=tmp_path / "key.pem"))})
    context = client_of(with_tls, None, None).tls
    assert context is not None
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    (tmp_path / "cert.pem").write_text("garbage")
    with pytest.raises(ConfigurationError, match=r"api\.tls: cannot read"):
        client_of(with_tls, None, None)
