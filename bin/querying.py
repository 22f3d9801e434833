"""`walden query` and `walden sql`: the history for people at a terminal.

Invariant: a query runs as the role walden_history, in a read-only transaction with a time limit, with nothing but pg_catalog on
its search path, and gives at most as many rows as were asked for. What it prints as a table cannot speak to the terminal: control
characters in what people wrote are shown, not obeyed.
"""

from __future__ import annotations

import csv
import io
import json
import math
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import psycopg
from psycopg import Connection
from psycopg.conninfo import make_conninfo
from psycopg.types.string import TextLoader

from bin.query_guard import Schema, bounded
from eventlog.queries import Queries

QUERIES: Final = Queries("bin", "querying.sql")
DEFAULT_ROWS: Final = 1_000
DEFAULT_SECONDS: Final = 30
GONE: Final = ("08", "57P")
"""Classes of errors that say nothing of the query: the connection broke, or the server goes down."""
# Their text is all that is wanted, and PostgreSQL has moments that Python has not.
AS_TEXT: Final = ("timestamptz", "timestamp", "date", "time", "timetz", "interval", "uuid", "bytea")


class QueryFailed(Exception):
    """The query did not give its rows; the message says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Rows with the names of their columns; `more`: there were others beyond the limit."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    more: bool


def psql_dsn(dsn: str) -> str:
    """The DSN with what `walden sql` sets: the schema without its name, and no writing by mistake."""
    options = psycopg.conninfo.conninfo_to_dict(dsn).get("options") or ""
    ours = "-c search_path=history -c default_transaction_read_only=on"
    return make_conninfo(dsn, options=f"{options} {ours}".strip(), application_name="walden sql")


def ask(dsn: str, statement: str, *, rows: int = DEFAULT_ROWS, seconds: float = DEFAULT_SECONDS) -> Answer:
    """Checks and runs one statement. Raises QueryRefused, QueryFailed; psycopg.OperationalError when the database is not there."""
    with psycopg.connect(dsn, application_name="walden query", connect_timeout=10) as connection:
        connection.read_only = True
        for oid in AS_TEXT:
            connection.adapters.register_loader(oid, TextLoader)
        with connection.transaction():
            try:
                connection.execute(QUERIES["become_history"])
                connection.execute(QUERIES["settings"], {"milliseconds": str(max(1, int(seconds * 1000)))})
                # One row more than is shown tells whether there are others.
                return _run(connection, bounded(statement, _schema(connection), rows + 1), rows)
            except psycopg.errors.QueryCanceled:
                raise QueryFailed(f"it took longer than {seconds:g} s: ask for less, or give it --timeout") from None
            except psycopg.errors.NoDataFound as error:
                raise QueryFailed(f"unknown: {error.diag.message_primary}") from None
            except psycopg.errors.InsufficientPrivilege as error:
                raise QueryFailed(f"refused by the database: {error.diag.message_primary}") from None
            except psycopg.Error as error:
                if isinstance(error, psycopg.OperationalError) and (error.sqlstate or GONE[0]).startswith(GONE):
                    raise
                raise QueryFailed(error.diag.message_primary or str(error)) from None


def _run(connection: Connection, statement: bytes, rows: int) -> Answer:
    with connection.cursor() as cursor:
        # The extended protocol, which takes one statement and no more.
        found = list(cursor.stream(statement))
        columns = tuple(column.name for column in cursor.description or ())
    return Answer(columns, found[:rows], len(found) > rows)


def _schema(connection: Connection) -> Schema:
    relations: dict[str, list[str]] = dict(connection.execute(QUERIES["relations"]).fetchall())
    functions: dict[str, list[str]] = {}
    for name, columns in connection.execute(QUERIES["functions"]).fetchall():
        functions.setdefault(name, []).extend(columns)
    return Schema(relations, functions)


def as_table(answer: Answer) -> str:
    """Columns under each other, for reading."""
    cells = [[_shown(value) for value in row] for row in answer.rows]
    titles = [_shown(name) for name in answer.columns]
    widths = [max(map(_width, column)) for column in zip(titles, *cells, strict=True)] if titles else []

    def line(row: Sequence[str]) -> str:
        padded = (cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True))
        return " | ".join(padded).rstrip()

    rule = "-+-".join("-" * width for width in widths)
    count = f"({len(cells)} row{'' if len(cells) == 1 else 's'})"
    return "\n".join([line(titles), rule, *map(line, cells), count, ""])


def as_csv(answer: Answer) -> str:
    """RFC 4180 with a line of titles; null is an empty field."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(answer.columns)
    writer.writerows(["" if value is None else _text(value) for value in row] for row in answer.rows)
    return out.getvalue()


def as_json(answer: Answer) -> str:
    """A list of objects; of columns of one name the last counts."""
    return (
        json.dumps(
            [dict(zip(answer.columns, map(_jsonable, row), strict=True)) for row in answer.rows],
            indent=2,
            ensure_ascii=False,
        )
        + "\n"
    )


FORMATS: Final[dict[str, Callable[[Answer], str]]] = {"table": as_table, "csv": as_csv, "json": as_json}


def _jsonable(value: Any) -> Any:
    if isinstance(value, Decimal):
        return (int(value) if value == value.to_integral_value() else float(value)) if value.is_finite() else str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, list | tuple):
        return [_jsonable(one) for one in value]
    if isinstance(value, str | int | float | dict) or value is None:
        return value
    return str(value)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list | tuple):
        return json.dumps(_jsonable(value), ensure_ascii=False)
    return str(value)


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return "".join(_visible(_text(value)))


def _visible(text: str) -> Iterable[str]:
    for letter in text:
        if unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp") and letter not in "\u200d":
            yield letter.encode("unicode_escape").decode("ascii")
        else:
            yield letter


def _width(text: str) -> int:
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )
