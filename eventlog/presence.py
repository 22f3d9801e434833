"""How far a process has come, for `walden status`, shown by the name of a session of its own.

Invariant: nothing is written to the database; what a process shows disappears with it. The name is
`walden COMPONENT PID at POSITION,POSITION...`, one position per shard, and fits PostgreSQL's 63 bytes (or is cut to what does).
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import psycopg
import structlog
from psycopg import AsyncConnection

SECONDS: Final = 1.0
_NAME: Final = re.compile(r"walden ([\w-]+) (\d+) at ((?:\d+,)*\d+)?")
_LONGEST: Final = 63
log = structlog.get_logger(__name__)


class Shown(NamedTuple):
    """What a session's name says. `positions` is by shard, and shorter than the shards if they did not fit."""

    component: str
    pid: int
    positions: tuple[int, ...]


def name(component: str, pid: int, positions: Sequence[int]) -> str:
    """The session name."""
    text = f"walden {component} {pid} at {','.join(map(str, positions))}"
    return text if len(text) <= _LONGEST else text[: text.rindex(",", 0, _LONGEST + 1)]


def parse(application_name: str) -> Shown | None:
    """What a session name says, None if it is another kind of session."""
    if not (match := _NAME.fullmatch(application_name)):
        return None
    return Shown(match[1], int(match[2]), tuple(int(part) for part in (match[3] or "").split(",") if part))


async def show(dsn: str, component: str, positions: Callable[[], Sequence[int]]) -> None:
    """Keep the session's name up to date, until cancelled. A lost connection is made again, for as long as it takes."""
    pid = os.getpid()
    while True:
        try:
            async with await AsyncConnection.connect(dsn, autocommit=True, connect_timeout=10) as connection:
                shown = ""
                while True:
                    now = name(component, pid, positions())
                    if now != shown:
                        await connection.execute("select set_config('application_name', %s, false)", [now])
                        shown = now
                    await asyncio.sleep(SECONDS)
        except psycopg.OperationalError as error:
            log.debug("the presence was cut off", error=str(error).strip())
            await asyncio.sleep(SECONDS)
