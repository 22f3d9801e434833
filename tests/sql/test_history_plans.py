"""The plans of the history schema, pinned: a page of a hundred is read by these indexes and touches as many rows as it has to.

The planner is told that there are ten million events: a small log is generated, and the counts of its tables are multiplied, so that
it chooses as it would on the large one (bin/bench --rows history measures that).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Any, Final

import psycopg
import pytest

from bin.benchmark.generated import generate
from bin.benchmark.history import ASKED, Asked, subjects

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

EVENTS: Final = 20_000
TIMES: Final = 500

# As on a log of ten million: the number of rows is the table's pages times the rows on one.
PRETEND = """
update pg_class set reltuples = reltuples * %s
where relnamespace::regnamespace::text in ('eventlog', 'roomserver', 'activity') and relkind in ('r', 'i') and reltuples > 0
"""

PLANS: Final[dict[str, list[str]]] = {}
"""Which index reads what, by question; partitions go by their parent's name."""

PARTITION = re.compile(r"_(\d{8}|default)")


@pytest.fixture(scope="module")
def log(module_database: str) -> Iterator[tuple[psycopg.Connection[Any], dict[str, str]]]:
    """A session of a person, on a database of which the planner thinks that it is large, and what to ask about."""

    async def fill() -> None:
        async with await psycopg.AsyncConnection.connect(module_database, autocommit=True) as connection:
            await generate(connection, EVENTS, slots=50, members=10)
            await connection.execute(PRETEND, [TIMES])

    asyncio.run(fill())
    with psycopg.connect(module_database, autocommit=True) as connection:
        about = subjects(connection)
        connection.execute("set role walden_history")
        yield connection, about


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", []):
        yield from nodes(inner)


def explained(connection: psycopg.Connection[Any], asked: Asked, about: dict[str, str]) -> list[dict[str, Any]]:
    """The steps that ran."""
    row = connection.execute("explain (analyze, format json) " + asked.statement, about).fetchone()
    assert row is not None
    return [node for node in nodes(row[0][0]["Plan"]) if node["Actual Loops"]]


def reading(steps: list[dict[str, Any]]) -> list[str]:
    """What is read how, partitions taken together; what is empty is read either way."""
    found = set()
    for node in steps:
        if "Relation Name" in node and (node["Node Type"] != "Seq Scan" or node["Actual Rows"]):
            relation = PARTITION.sub("", node["Relation Name"])
            index = PARTITION.sub("", node.get("Index Name", ""))
            found.add(" ".join(filter(None, (node["Node Type"].replace(" Backward", ""), relation, index))))
        elif "Function Name" in node:
            found.add(f"{node['Node Type']} {node['Function Name']}")
    return sorted(found)


@pytest.mark.parametrize("name", ASKED)
def test_a_page_is_read_by_the_same_indexes_whatever_the_log_holds(
    log: tuple[psycopg.Connection[Any], dict[str, str]], name: str
) -> None:
    steps = explained(log[0], ASKED[name], log[1])
    assert reading(steps) == PLANS[name]
    touched = max(node["Actual Loops"] * (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) for node in steps)
    assert touched <= ASKED[name].touches
    assert not any("Seq Scan" in step for step in reading(steps))
