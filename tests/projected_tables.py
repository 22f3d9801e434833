"""Everything in the readers' projections, to be compared."""

from typing import LiteralString

import psycopg

TABLES: tuple[LiteralString, ...] = (
    "select row_to_json(d)::text from search.documents d order by 1",
    "select row_to_json(u)::text from userdirectory.users u order by 1",
    "select row_to_json(p)::text from userdirectory.public_rooms p order by 1",
    "select row_to_json(n)::text from notifications.notices n order by 1",
    "select row_to_json(x)::text from notifications.exceptions x order by 1",
)


def rows(dsn: str) -> list[list[str]]:
    """The rows of each table, in order."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        return [[row for (row,) in connection.execute(query)] for query in TABLES]
