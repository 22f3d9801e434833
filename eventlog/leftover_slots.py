"""Slots that a former primary has kept: a server that was demoted has its logical slots still, unless it was rewound.

There they hold back WAL, keep the standby from taking over the primary's slots of the same names (17 and newer), and lie in wait,
long out of date, for when it is promoted again. Patroni leaves them alone, as it has been told to.

Invariant: dropped is only what has the name of a durable slot of this installation, was not kept in step with the primary's, and is
not in use, on a server in recovery or on one that has just been promoted.
"""

from __future__ import annotations

from typing import Final

from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from eventlog.queries import Queries

QUERIES: Final = Queries("eventlog", "slots.sql")
CONNECT_SECONDS: Final = 3


def nodes(dsn: str) -> list[str]:
    """A DSN for each server of one that names several; none for one that names one."""
    given = conninfo_to_dict(dsn)
    lists = {key: str(given[key]).split(",") for key in ("host", "hostaddr", "port") if given.get(key) is not None}
    count = max((len(values) for key, values in lists.items() if key != "port"), default=1)
    if count < 2:
        return []
    return [
        make_conninfo(
            dsn,
            target_session_attrs="any",
            connect_timeout=CONNECT_SECONDS,
            # One port may stand for all.
            **{key: values[number] if len(values) == count else values[0] for key, values in lists.items()},
        )
        for number in range(count)
    ]


async def drop_leftovers(node: str, *, promoted: bool = False) -> list[str]:
    """Drop them on one server, as a role that may replicate; their names. Raises psycopg.Error.

    On a standby; with `promoted`, on a primary: for who knows that it has just become that, and that no slot was made since.
    """
    async with await AsyncConnection.connect(node, autocommit=True) as connection:
        cursor = await connection.execute(QUERIES["drop_leftovers"], {"standby": not promoted})
        return [str(name) for name, _ in await cursor.fetchall()]
