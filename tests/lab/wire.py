"""One connection to Postgres, driven by a loop of one's own: begin, step, never wait. For many questions a second on little processor time.

libpq's asynchronous calls without psycopg's layers: a question costs a tenth of what a cursor costs. Nothing here blocks or retries.
"""

from __future__ import annotations

import contextlib
import enum
import select
import time

from psycopg import OperationalError, pq

CONNECT_S = 0.2
ASK_S = 0.2


class Stage(enum.Enum):
    """What the wire is doing."""

    CLOSED = "closed"
    CONNECTING = "connecting"
    READY = "ready"
    ASKING = "asking"


def now_ns() -> int:
    """CLOCK_BOOTTIME: one for all hosts of the lab."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Wire:
    """A connection that asks one question at a time. `failure` says why the last one got no answer."""

    def __init__(self) -> None:
        self.stage = Stage.CLOSED
        self.failure = ""
        self.answer: bytes | None = None
        self.sent_ns = 0
        self._conn: pq.PGconn | None = None
        self._deadline_ns = 0
        self._events = 0
        self._pending: bytes | None = None
        self._warned = ""

    @property
    def is_busy(self) -> bool:
        return self.stage in {Stage.CONNECTING, Stage.ASKING}

    def ask(self, conninfo: str, sql: str) -> None:
        """Begin a question: connect first if there is no connection. 200 ms to connect, 200 ms for the statement."""
        self.answer, self.failure, self._warned = None, "", ""
        if self.stage is Stage.READY:
            self._send(sql.encode())
            return
        self._pending = sql.encode()
        self._deadline_ns = now_ns() + int(CONNECT_S * 1e9)
        self._conn = pq.PGconn.connect_start(conninfo.encode())
        self._conn.notice_handler = self._notice
        self.stage, self._events = Stage.CONNECTING, select.POLLOUT
        if self._conn.status == pq.ConnStatus.BAD:
            self._break(self._words())

    def interest(self) -> tuple[int, int] | None:
        """File descriptor and poll events that it waits for; None: nothing."""
        if self._conn is None or not self.is_busy:
            return None
        with contextlib.suppress(OperationalError):
            return self._conn.socket, self._events
        return None

    @property
    def deadline_ns(self) -> int:
        """When the running step is too late."""
        return self._deadline_ns

    def step(self, *, is_due: bool) -> bool:
        """Go on, if the descriptor said so or the time is over; True when the question has ended, by an answer or a failure."""
        if not self.is_busy:
            return False
        if is_due:
            try:
                self._connect() if self.stage is Stage.CONNECTING else self._receive()
            except OperationalError as error:
                self._break(str(error))
        if self.is_busy and now_ns() >= self._deadline_ns:
            self._break(f"no answer while {self.stage.value}")
        return not self.is_busy

    def close(self) -> None:
        """Drop the connection without a word to the server's process."""
        if self._conn is not None:
            self._conn.finish()
        self._conn, self.stage = None, Stage.CLOSED

    def _connect(self) -> None:
        assert self._conn is not None
        polled = self._conn.connect_poll()
        if polled == pq.PollingStatus.OK:
            self._conn.nonblocking = 1
            assert self._pending is not None
            self._send(self._pending)
        elif polled == pq.PollingStatus.FAILED:
            self._break(self._words())
        else:
            self._events = select.POLLIN if polled == pq.PollingStatus.READING else select.POLLOUT

    def _send(self, sql: bytes) -> None:
        assert self._conn is not None
        self.sent_ns = now_ns()
        self._deadline_ns = self.sent_ns + int(ASK_S * 1e9)
        self.stage, self._events = Stage.ASKING, select.POLLIN
        try:
            self._conn.send_query(sql)
            self._conn.flush()
        except OperationalError as error:
            self._break(str(error))

    def _receive(self) -> None:
        assert self._conn is not None
        self._conn.consume_input()
        while not self._conn.is_busy():
            result = self._conn.get_result()
            if result is None:
                self._end()
                return
            self._take(result)

    def _take(self, result: pq.PGresult) -> None:
        if result.status == pq.ExecStatus.TUPLES_OK:
            self.answer = result.get_value(0, 0) or b""
        elif result.status == pq.ExecStatus.COMMAND_OK:
            self.answer = b""
        else:
            self.failure = result.error_message.decode(errors="replace").strip() or "an error without words"

    def _end(self) -> None:
        failure = self.failure or self._warned or ("" if self.answer is not None else "no result")
        if failure:
            self._break(failure)
        else:
            self.stage = Stage.READY

    def _break(self, failure: str) -> None:
        self.failure = " ".join(failure.split())[:200]
        self.answer = None
        self.close()

    def _words(self) -> str:
        return self._conn.get_error_message() if self._conn is not None else ""

    def _notice(self, result: pq.PGresult) -> None:
        if result.error_field(pq.DiagnosticField.SEVERITY_NONLOCALIZED) == b"WARNING":
            self._warned = f"WARNING: {(result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b'').decode(errors='replace')}"
