"""A round of retention: everything that leaves the log by itself, in order. `walden maintenance` makes one every hour.

Invariant: a round that is broken off, or finds another one at work, has done nothing twice and leaves nothing that the next one
does not finish.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from psycopg import AsyncConnection

from eventlog.settings import Retention
from readers.retention.partitions import KINDS, Expired, drop_expired, expired, finish
from readers.retention.policies import read_policies
from readers.retention.purging import apply_room_policies, forget_claims
from readers.retention.record import SQL, Record, alone
from readers.retention.scrubbing import scrub_redactions

CLAIMED_DAYS: Final = 8
"""Longer than a transaction id is remembered."""


@dataclass(slots=True)
class Round:
    """What a round did: the records of dropped partitions, messages that rooms' policies let go, redacted events scrubbed."""

    dropped: dict[str, Record] = field(default_factory=dict)
    by_policy: int = 0
    scrubbed: int = 0


@dataclass(slots=True)
class Outlook:
    """What a round would do now."""

    partitions: list[tuple[Expired, int, int]] = field(default_factory=list)
    """With rows and bytes of both logs."""
    rooms: list[tuple[str, float]] = field(default_factory=list)
    """Rooms with a policy of their own, and its days."""
    unscrubbed: int = 0


async def go_round(connection: AsyncConnection, settings: Retention, by: str = "maintenance") -> Round:
    """One round. Wants an autocommit connection past any pooler; raises Busy while another one works, psycopg.Error."""
    done = Round()
    async with alone(connection):
        await connection.execute(SQL["take_time"])
        await finish(connection)
        policies = await read_policies(connection, settings)
        for kind, days in _days(settings).items():
            record = await drop_expired(connection, kind, days, policies, by)
            if record is not None:
                done.dropped[KINDS[kind]] = record
        done.by_policy = await apply_room_policies(connection, policies)
        if done.by_policy or (done.dropped and settings.message_days < CLAIMED_DAYS):
            await forget_claims(connection)
        done.scrubbed = await scrub_redactions(connection, settings)
        await connection.execute(SQL["forget_records"])
    return done


async def look_ahead(connection: AsyncConnection, settings: Retention) -> Outlook:
    """What a round would do; changes nothing."""
    seen = Outlook()
    for kind, days in _days(settings).items():
        for one in await expired(connection, kind, days):
            row = await (await connection.execute(SQL["sizes"], {"kind": kind, "label": one.label})).fetchone()
            assert row is not None
            seen.partitions.append((one, row[0] or 0, row[1] or 0))
    seen.rooms = [(one.room_id, one.days) for one in (await read_policies(connection, settings)).rooms]
    if settings.redacted_days:
        row = await (await connection.execute(SQL["unscrubbed_number"], {"days": settings.redacted_days})).fetchone()
        assert row is not None
        seen.unscrubbed = row[0]
    return seen


def _days(settings: Retention) -> dict[str, float]:
    return {"m": settings.message_days, "u": settings.user_entry_days}
