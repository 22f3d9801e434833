"""A database's two logs to write to, and a person who may read their history."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from judged_rooms import History, Log
from psycopg.rows import dict_row


@pytest.fixture
def log(database: str) -> Iterator[Log]:
    with Log(database) as log:
        log.install()
        yield log


@pytest.fixture
def history(database: str) -> Iterator[History]:
    """A connection of a person who may read history."""
    with psycopg.connect(database, autocommit=True, row_factory=dict_row) as connection:
        connection.execute("set role walden_history")
        yield connection
