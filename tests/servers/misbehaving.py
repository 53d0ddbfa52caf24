"""Servers on loopback that behave badly on purpose, for whatever must not hang or break on them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

GARBAGE = b"\x00\xffGARBAGE\r\n" * 50


@asynccontextmanager
async def hung() -> AsyncIterator[int]:
    """Takes connections and never answers. Gives its port."""
    ended = asyncio.Event()

    async def handle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ended.wait()
        writer.transport.abort()

    async with _serving(handle) as port:
        yield port
        ended.set()


@asynccontextmanager
async def answering(data: bytes, *, after_bytes: int = 1) -> AsyncIterator[int]:
    """Answers the first `after_bytes` bytes of everybody with `data` and hangs up; empty data: just hangs up."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readexactly(after_bytes)
            writer.write(data)
            await writer.drain()
        writer.close()

    async with _serving(handle) as port:
        yield port


@contextmanager
def blackhole() -> Iterator[int]:
    """A port that neither takes nor refuses a connection: its queue is full and the kernel drops what else comes."""
    with socket.socket() as listener, contextlib.ExitStack() as waiting:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        for _ in range(4):
            client = waiting.enter_context(socket.socket())
            client.settimeout(0)
            client.connect_ex(address)
        yield address[1]


@contextmanager
def refused() -> Iterator[int]:
    """A port that is bound, so that nobody else gets it, and refuses everybody."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@asynccontextmanager
async def _serving(handle: object) -> AsyncIterator[int]:
    server = await asyncio.start_server(handle, "127.0.0.1", 0)  # type: ignore[arg-type]
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
