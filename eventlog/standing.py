"""Work that goes on for as long as a process lives.

Invariant: no fault ends it unseen. Where it is the process's own, outages are sat out within a budget and anything else is raised,
for the supervisor to see. Where it goes on beside requests nobody awaits it: a fault in it is logged, and it begins anew after a
pause.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

import psycopg
import structlog

from eventlog.faults import Failure, Policy, Retries, judge

PAUSE_SECONDS: Final = 1.0
STEADY_SECONDS: Final = 10.0
"""What has worked for so long has got over its last outage."""
log = structlog.get_logger(__name__)


def stand(work: Callable[[], Coroutine[Any, Any, None]], name: str) -> asyncio.Task[None]:
    """Begins work, and begins it again when it fails; whoever begins it ends it."""
    return asyncio.create_task(_repeat(work, name), name=name)


async def _repeat(work: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
    while True:
        try:
            return await work()
        except Exception:
            log.exception("a fault ended what must go on: it begins anew", task=name)
            await asyncio.sleep(PAUSE_SECONDS)


async def end(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancels tasks and waits until they have ended, however they do."""
    running = [task for task in tasks if task is not None]
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


async def persist(session: Callable[[], Coroutine[Any, Any, None]], what: str) -> None:
    """Runs sessions with the database, one after another, until cancelled.

    Raises what does not pass by itself, and what has not passed within the budget of `Retries`.
    """
    delays = Retries().delays()
    while True:
        began = time.monotonic()
        try:
            await session()
        except (psycopg.Error, OSError, Failure) as error:
            if judge(error).policy is Policy.STOP:
                raise
            if time.monotonic() - began > STEADY_SECONDS:
                delays = Retries().delays()
            delay = next(delays, None)
            if delay is None:
                raise
            log.warning("interrupted", what=what, error=str(error).strip(), again_in=round(delay, 2))
            await asyncio.sleep(delay)
