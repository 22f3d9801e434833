"""Who may do what, read from the catalogue: the page docs/grants.md, and what the tests of rights go by.

Invariant: it says what PostgreSQL would decide (`has_table_privilege` and its like), rights of PUBLIC included, not what was once
granted. Partitions are left out: sessions use their parents, whose rights are what counts.
"""

from typing import Any, Final, NamedTuple

from psycopg import AsyncConnection
from psycopg.rows import dict_row

from bin.logins import GROUPS
from eventlog.queries import Queries

QUERIES = Queries("bin", "grants.sql")
KINDS: Final = ("select", "insert", "update", "delete", "truncate")
LETTERS: Final = {"select": "s", "insert": "i", "update": "u", "delete": "d", "truncate": "t"}

HEAD: Final = """\
# Who may do what

Made by `walden grants` from the catalogue of a fresh database. A test holds this page against it, and tries as each role whatever
is not here: PostgreSQL refuses it. Rights belong to group roles; `walden init`, or the administrator's script, makes a login of
each, named `walden_<database oid>_<role>`. [roles.md](roles.md) says who uses which.

Tables and views: s select, i insert, u update, d delete, t truncate; column names in brackets where the right is for these alone.
Functions run with their owner's rights where the table says *definer*: whoever may execute them may do what they
do, and no more.
"""


class Right(NamedTuple):
    """One right on a table or view. `columns` are empty for the whole of it."""

    role: str
    table: str
    kind: str
    columns: tuple[str, ...]


async def _rows(connection: AsyncConnection, query: str) -> list[dict[str, Any]]:
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(QUERIES[query], {"roles": list(GROUPS.values()), "kinds": list(KINDS)})
        return await cursor.fetchall()


async def table_rights(connection: AsyncConnection) -> tuple[list[str], list[Right]]:
    """Every table and view, and every right on one that a group has."""
    tables = [row["name"] for row in await _rows(connection, "tables")]
    return tables, [
        Right(row["role"], row["name"], row["kind"], tuple(row["columns"]))
        for row in await _rows(connection, "table_rights")
    ]


async def page(dsn: str) -> str:
    """docs/grants.md, for the database of the DSN."""
    async with await AsyncConnection.connect(dsn, autocommit=True) as connection:
        tables, rights = await table_rights(connection)
        functions = await _rows(connection, "functions")
        schemas = await _rows(connection, "schemas")
        sequences = await _rows(connection, "sequences")
    names = [group.removeprefix("walden_") for group in GROUPS.values()]
    parts = [HEAD, "\n## Schemas\n\n", _table("schema", names)]
    parts += [_line(row["name"], [_words(row["rights"], group) for group in GROUPS.values()]) for row in schemas]
    parts += ["\n## Tables and views\n\n", _table("table", names)]
    for table in tables:
        cells = []
        for group in GROUPS.values():
            mine = [right for right in rights if (right.role, right.table) == (group, table)]
            mine.sort(key=lambda right: KINDS.index(right.kind))
            whole = "".join(LETTERS[right.kind] for right in mine if not right.columns)
            parted = [f"{LETTERS[right.kind]} ({', '.join(right.columns)})" for right in mine if right.columns]
            cells.append(" ".join(filter(None, [whole, *parted])))
        parts.append(_line(table, cells))
    parts += ["\n## Functions\n\n", _table("function", ["", *names])]
    for row in functions:
        cells = ["definer" if row["definer"] else ""]
        cells += ["x" if group in row["roles"] else "" for group in GROUPS.values()]
        parts.append(_line(row["name"], cells))
    parts += ["\n## Sequences\n\n", _table("sequence", names)]
    parts += [
        _line(row["name"], ["usage" if group in row["roles"] else "" for group in GROUPS.values()]) for row in sequences
    ]
    return "".join(parts)


def _words(rights: list[str], group: str) -> str:
    return ", ".join(one.partition(" ")[2] for one in rights if one.partition(" ")[0] == group)


def _table(first: str, columns: list[str]) -> str:
    return f"| {' | '.join([first, *columns])} |\n{'|---' * (len(columns) + 1)}|\n"


def _line(name: str, cells: list[str]) -> str:
    return f"| `{name}` | {' | '.join(cells)} |\n"
