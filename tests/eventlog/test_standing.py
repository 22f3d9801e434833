"""Work beside the requests goes on after a fault, and ends when it is told to."""

from __future__ import annotations

import asyncio
from functools import partial

import psycopg
import pytest

from eventlog import standing
from eventlog.faults import Failure, Policy, Retries
from eventlog.standing import end, persist, stand


async def test_work_that_failed_begins_anew_until_it_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing, "PAUSE_SECONDS", 0.0)
    rounds = []

    async def work() -> None:
        rounds.append(len(rounds))
        if len(rounds) < 3:
            raise KeyError("not foreseen")

    async with asyncio.timeout(30):
        await stand(work, "work")
    assert rounds == [0, 1, 2]


async def test_work_that_is_ended_does_not_begin_anew() -> None:
    begun: list[asyncio.Event] = []

    async def work() -> None:
        begun.append(asyncio.Event())
        await begun[-1].wait()

    task = stand(work, "work")
    await asyncio.sleep(0)
    await end(None, task)
    assert task.cancelled() and len(begun) == 1


class Broken(Failure):
    policy = Policy.STOP


async def test_an_outage_is_sat_out_and_what_does_not_pass_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing, "Retries", partial(Retries, first=0.0, most=0.0))
    errors: list[Exception] = [
        OSError("away"),
        psycopg.OperationalError("starting"),
        Broken("the schema is another", ""),
    ]

    async def session() -> None:
        raise errors.pop(0)

    async with asyncio.timeout(30):
        with pytest.raises(Broken):
            await persist(session, "a test")
    assert errors == []


async def test_an_outage_beyond_the_budget_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing, "Retries", partial(Retries, first=0.01, most=0.01, budget=0.0))

    async def session() -> None:
        raise OSError("away")

    async with asyncio.timeout(30):
        with pytest.raises(OSError, match="away"):
            await persist(session, "a test")
