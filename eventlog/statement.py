"""One statement that a connection runs again and again, at libpq's own level: the hot path's two.

Invariant: what is answered is what the server said, whole, or an error is raised and the connection is of no more use unless the
error came from the statement itself. Runs take turns with whatever else uses the connection.

psycopg's cursors adapt, look up and copy what these statements do not need: they take 40 µs where this takes 15, and several times
as much of either in a process that has just been woken up.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
from itertools import count
from typing import Final

import psycopg
from psycopg import AsyncConnection
from psycopg.pq import ConnStatus, ExecStatus

from eventlog.pools import STATEMENT_SECONDS

Value = bytes | None
_ROWS: Final = (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK)
_numbers: Final = count(1)
ANSWER_SECONDS: Final = STATEMENT_SECONDS + 10.0
"""The server cancels a statement before: no answer by then is a connection that leads nowhere."""


class NoAnswer(psycopg.OperationalError):
    """The connection leads nowhere."""


class Statement:
    """A statement with `$1`, `$2`… on one connection; text parameters in, text columns out.

    `prepare`: plan it once for the session; not through a pooler that knows no prepared statements.
    """

    def __init__(self, connection: AsyncConnection, query: str, *, prepare: bool = True) -> None:
        self.connection = connection
        self._pgconn = connection.pgconn
        self._query = query.encode()
        self._name = f"walden_{next(_numbers)}".encode() if prepare else b""
        self._prepared = not prepare
        self._ready: asyncio.Future[None] | None = None

    @property
    def usable(self) -> bool:
        """Whether the connection is still there: a server that ended the session has said so into the socket."""
        pgconn = self._pgconn
        if pgconn.status == ConnStatus.OK and not self.connection.lock.locked():
            poll = select.poll()
            poll.register(pgconn.socket, select.POLLIN)
            with contextlib.suppress(psycopg.OperationalError):
                # Its last words, then the end.
                for _ in range(2):
                    if poll.poll(0):
                        pgconn.consume_input()
        return pgconn.status == ConnStatus.OK

    async def run(self, *parameters: Value) -> list[tuple[Value, ...]]:
        """The rows of one execution, text as bytes.

        Raises psycopg.Error. A run that is cancelled, or not answered within `ANSWER_SECONDS`, closes the connection: the answer
        would be left over in it.
        """
        async with self.connection.lock:
            loop = asyncio.get_running_loop()
            timer = loop.call_later(ANSWER_SECONDS, self._give_up)
            try:
                if not self._prepared:
                    self._pgconn.send_prepare(self._name, self._query)
                    await self._answer(loop)
                    self._prepared = True
                if self._name:
                    self._pgconn.send_query_prepared(self._name, parameters)
                else:
                    self._pgconn.send_query_params(self._query, parameters)
                return await self._answer(loop)
            except (asyncio.CancelledError, NoAnswer):
                self._pgconn.finish()
                raise
            finally:
                timer.cancel()

    def _give_up(self) -> None:
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(NoAnswer(f"the server did not answer within {ANSWER_SECONDS:.0f} s"))

    async def _answer(self, loop: asyncio.AbstractEventLoop) -> list[tuple[Value, ...]]:
        pgconn = self._pgconn
        while pgconn.flush():
            await self._wait(loop, writing=True)
            pgconn.consume_input()
        rows: list[tuple[Value, ...]] = []
        error: psycopg.Error | None = None
        while True:
            while pgconn.is_busy():
                await self._wait(loop)
                pgconn.consume_input()
            result = pgconn.get_result()
            if result is None:
                break
            if result.status in _ROWS:
                columns = range(result.nfields)
                rows += [tuple([result.get_value(row, column) for column in columns]) for row in range(result.ntuples)]
            else:
                error = psycopg.errors.error_from_result(result)
        if error is not None:
            raise error
        return rows

    async def _wait(self, loop: asyncio.AbstractEventLoop, *, writing: bool = False) -> None:
        """Waits until the socket can be read, or also written."""
        ready = self._ready = loop.create_future()
        socket = self._pgconn.socket
        loop.add_reader(socket, _wake, ready)
        if writing:
            loop.add_writer(socket, _wake, ready)
        try:
            await ready
        finally:
            self._ready = None
            loop.remove_reader(socket)
            if writing:
                loop.remove_writer(socket)


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
