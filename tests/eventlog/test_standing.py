"""Work beside the requests goes on after a fault, and ends when it is told to."""

from __future__ import annotations

import asyncio

import pytest

from eventlog import standing
from eventlog.standing import end, stand


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
