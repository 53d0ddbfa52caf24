"""A server that answers as it is told, or hangs, cuts, talks nonsense: for faults that a real Consul does not make on demand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

HANG = "hang"
CUT = "cut"
NONSENSE = "nonsense"


@dataclass(frozen=True)
class Said:
    """One answer."""

    status: int = 200
    body: str = "[]"
    headers: tuple[str, ...] = ("X-Consul-Index: 7",)

    def encoded(self) -> bytes:
        body = self.body.encode()
        lines = (f"HTTP/1.1 {self.status} Said", f"Content-Length: {len(body)}", "Connection: keep-alive", *self.headers)
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@dataclass
class RudeServer:
    """`answers`: what happens to each question in turn; the last one goes on for ever."""

    answers: list[Said | str]
    asked: list[str] = field(default_factory=list)
    """Each question's first line."""
    heads: list[str] = field(default_factory=list)
    """Each question's headers."""
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                length = next((int(line.split(":")[1]) for line in head.lower().splitlines() if line.startswith("content-length")), 0)
                await reader.readexactly(length)
                self.asked.append(head.splitlines()[0])
                self.heads.append(head)
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                if answer == HANG:
                    await reader.read()  # until the other side gives up
                    break
                if answer == CUT:
                    break
                writer.write(b"\x16\x03 what?\r\n\r\n" if isinstance(answer, str) else answer.encoded())
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def rude(*answers: Said | str) -> AsyncIterator[RudeServer]:
    one = RudeServer(list(answers))
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    one.url = f"http://127.0.0.1:{port}"
    try:
        yield one
    finally:
        server.close()
        await server.wait_closed()
