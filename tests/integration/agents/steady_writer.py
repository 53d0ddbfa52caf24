"""A client on another host: `python steady_writer.py CONNINFO SECONDS [PAUSE]`.

It writes one row after the other on one connection, and takes a new one after any error. It prints a line for each attempt: seconds of
CLOCK_MONOTONIC when it ended, how long it took, what came of it. With PAUSE, each row is written only after the server has slept so long in
the same statement: a commit that is asked for early and acknowledged late.
"""

from __future__ import annotations

import asyncio
import sys
import time

import psycopg

CONNECT_S, STATEMENT_S, EVERY_S = 1, 2.0, 0.02


async def main(conninfo: str, seconds: float, pause_s: float) -> None:
    end_s = time.monotonic() + seconds
    sql = "INSERT INTO written SELECT extract(epoch FROM clock_timestamp()) FROM pg_sleep(%s)"
    connection: psycopg.AsyncConnection[tuple[object, ...]] | None = None
    while time.monotonic() < end_s:
        began_s, outcome = time.monotonic(), "ok"
        try:
            async with asyncio.timeout(STATEMENT_S + pause_s):
                if connection is None:
                    connection = await psycopg.AsyncConnection.connect(conninfo, connect_timeout=CONNECT_S, autocommit=True)
                await connection.execute(sql, (pause_s,))
        except (psycopg.Error, TimeoutError, OSError) as error:
            outcome = "lost" if connection is not None else "shut"
            outcome += " silence" if isinstance(error, TimeoutError) else ""
            if connection is not None:
                await connection.close()
            connection = None
        now_s = time.monotonic()
        sys.stdout.write(f"{now_s:.3f} {now_s - began_s:.3f} {outcome}\n")
        sys.stdout.flush()
        await asyncio.sleep(EVERY_S)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]) if len(sys.argv) > 3 else 0.0))
