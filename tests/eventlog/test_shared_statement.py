"""Shared statements: who comes while one is under way is in the next; nobody's mistake is another's."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from eventlog import shared_statement
from eventlog.shared_statement import SharedStatement
from matrix.errors import MatrixError


class Doubler:
    """Doubles numbers when it is let; the database does not take 13."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.let = asyncio.Event()

    async def __call__(self, asked: list[int]) -> list[int]:
        self.groups.append(asked)
        await self.let.wait()
        if 13 in asked:
            raise psycopg.errors.UntranslatableCharacter("13")
        if 500 in asked:
            raise psycopg.OperationalError("gone")
        return [2 * number for number in asked]


async def begun(shared: SharedStatement[int, int], *numbers: int) -> list[asyncio.Task[int]]:
    tasks = []
    for number in numbers:
        tasks.append(asyncio.create_task(shared.answer(number)))
        for _ in range(3):
            await asyncio.sleep(0)
    return tasks


async def test_who_comes_while_a_statement_is_under_way_shares_the_next() -> None:
    double = Doubler()
    tasks = await begun(SharedStatement(double, most=3, name="doubles"), 1, 2, 3, 4, 5)
    double.let.set()
    assert await asyncio.gather(*tasks) == [2, 4, 6, 8, 10]
    assert double.groups == [[1], [2, 3, 4], [5]]


async def test_one_who_counts_for_more_than_all_is_alone_and_not_divided() -> None:
    double = Doubler()
    double.let.set()
    shared = SharedStatement(double, most=3, name="doubles")
    assert await asyncio.gather(*(shared.answer(number, size=number) for number in (5, 1, 9))) == [10, 2, 18]
    assert double.groups == [[5], [1], [9]]


async def test_only_who_brought_what_the_database_does_not_take_is_refused() -> None:
    double = Doubler()
    tasks = await begun(SharedStatement(double, most=9, name="doubles"), 1, 2, 13, 3)
    double.let.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(answers.pop(2), psycopg.DataError)
    assert answers == [2, 4, 6]


async def test_a_statement_that_fails_fails_for_its_own_and_the_next_one_runs() -> None:
    double = Doubler()
    shared = SharedStatement(double, most=2, name="doubles")
    tasks = await begun(shared, 500, 1, 2)
    double.let.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(answers[0], psycopg.OperationalError)
    assert answers[1:] == [2, 4]


async def test_who_goes_away_takes_nobody_along_and_is_not_asked_for() -> None:
    double = Doubler()
    first, second, third = await begun(SharedStatement(double, most=9, name="doubles"), 1, 2, 3)
    first.cancel()
    second.cancel()
    double.let.set()
    assert await third == 6
    assert double.groups == [[1], [3]]


async def test_when_too_many_wait_the_next_is_told_to_come_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_statement, "MOST_WAITING", 1)
    double = Doubler()
    shared = SharedStatement(double, most=9, name="doubles")
    tasks = await begun(shared, 1, 2)
    with pytest.raises(MatrixError) as refused:
        await shared.answer(3)
    assert refused.value.status == 503
    double.let.set()
    assert await asyncio.gather(*tasks) == [2, 4]
