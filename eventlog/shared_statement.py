"""Requests of one process that share a statement: who comes while it is under way has a place in the next one.

Invariant: one statement is under way at a time; everybody gets the answer to what they asked, or the error of the statement that
asked it. Where one of them brought what the database does not take, it alone is refused.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Generic, NamedTuple, TypeVar

import psycopg

from matrix.errors import MatrixError

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")

MOST_WAITING: Final = 2_000
"""Requests that wait for a statement; what comes then is answered 503."""


class _Waiting(NamedTuple, Generic[Asked, Answer]):
    asked: Asked
    size: int
    answer: asyncio.Future[Answer]


class SharedStatement(Generic[Asked, Answer]):
    """Runs `ask` for all that wait: it is given what they asked and returns as many answers, in that order.

    `most` bounds the sum of the sizes that one statement is for.
    """

    def __init__(self, ask: Callable[[list[Asked]], Awaitable[list[Answer]]], *, most: int, name: str) -> None:
        self._ask = ask
        self._most = most
        self._name = name
        self._waiting: deque[_Waiting[Asked, Answer]] = deque()
        self._work: asyncio.Task[None] | None = None

    async def answer(self, asked: Asked, size: int = 1) -> Answer:
        """The answer to one request, which counts for `size`. MatrixError 503 if too many wait."""
        if len(self._waiting) >= MOST_WAITING:
            raise MatrixError(503, "M_UNKNOWN", "The server is overloaded. Try again later.")
        waiting = _Waiting[Asked, Answer](asked, size, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._serve(), name=self._name)
        return await waiting.answer

    async def _serve(self) -> None:
        while self._waiting:
            group = [self._waiting.popleft()]
            size = group[0].size
            while self._waiting and size + self._waiting[0].size <= self._most:
                group.append(self._waiting.popleft())
                size += group[-1].size
            if group := [one for one in group if not one.answer.done()]:
                await self._run(group)

    async def _run(self, group: list[_Waiting[Asked, Answer]]) -> None:
        try:
            answers = await self._ask([one.asked for one in group])
        except psycopg.DataError as error:
            if len(group) == 1:
                _fail(group, error)
            for one in group if len(group) > 1 else ():
                await self._run([one])
        except Exception as error:
            _fail(group, error)
        except asyncio.CancelledError:
            for one in group:
                one.answer.cancel()
            raise
        else:
            for one, answer in zip(group, answers, strict=True):
                if not one.answer.done():
                    one.answer.set_result(answer)


def _fail(group: list[_Waiting[Asked, Answer]], error: Exception) -> None:
    for one in group:
        if not one.answer.done():
            one.answer.set_exception(error)
