"""Work that goes on beside the requests for as long as a process lives.

Invariant: it ends when it is told to, or by itself. A fault in it is logged, and it begins anew after a pause: nobody awaits it, so
that otherwise it would be gone and nobody would know, while requests wait for what it no longer does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

import structlog

PAUSE_SECONDS: Final = 1.0
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
