"""Every table has an owner, a bound and what prunes it: docs/tables.md. tests/processes/test_soak.py holds them to it."""

from __future__ import annotations

import psycopg
import pytest
from tables_page import NAMES, bounds, value

pytestmark = pytest.mark.postgres

TABLES = """
    select n.nspname || '.' || c.relname
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p') and not c.relispartition
      and n.nspname not in ('pg_catalog', 'information_schema', 'public') and n.nspname not like 'pg_toast%'
"""


def test_every_table_has_an_owner_a_bound_and_what_prunes_it(database: str) -> None:
    with psycopg.connect(database) as connection:
        there = {name for (name,) in connection.execute(TABLES).fetchall()}
    assert there == bounds().keys(), "docs/tables.md does not list exactly the tables there are"
    for formula in bounds().values():
        assert value(formula, dict.fromkeys(NAMES, 1)) >= 0
