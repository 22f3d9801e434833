"""The plans of the history schema, pinned: a page of a hundred is read by these indexes and touches as many rows as it has to.

The planner is told that there are ten million events: a small log is generated, and the counts of its tables are multiplied,
so that it chooses as it would on the large one (bin/bench --rows history measures that).
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

# As on a log of ten million: the number of rows is the table's pages times the rows on one. Rooms, members and their state stay as
# few as they are: a room has more of everything then. No table is larger than what ANALYZE looks at, so statistics do not vary.
PRETEND = """
update pg_class set reltuples = reltuples * %s
where relnamespace::regnamespace::text in ('eventlog', 'roomserver') and relkind in ('r', 'i') and reltuples > 0
  and relname ~ '^(events_m|outputs_m|event_keys|relations|redactions)'
"""

PLANS: Final[dict[str, list[str]]] = {
    "rooms": [
        "events_s_pkey",
        "heads_pkey",
        "redactions_pkey",
        "rooms_pkey",
        "state_of_key",
    ],
    "messages": [
        "events_m_pkey",
        "latest_edit()",
        "outputs_m_room_timeline_idx",
        "redactions_pkey",
        "relations_pkey",
        "rooms_pkey",
    ],
    "messages-small": [
        "events_m_pkey",
        "latest_edit()",
        "outputs_m_room_timeline_idx",
        "redaction_of()",
        "redactions_pkey",
        "relations_pkey",
        "rooms_pkey",
    ],
    "messages-since": [
        "events_m_pkey",
        "latest_edit()",
        "outputs_m_room_timeline_idx",
        "redactions_pkey",
        "relations_pkey",
        "rooms_pkey",
    ],
    "edits": [
        "event_keys_pkey",
        "events_m_pkey",
        "outputs_m_pkey",
        "redactions_pkey",
        "relations_room",
        "rooms_pkey",
    ],
    "reactions": [
        "events_m_pkey",
        "redactions_pkey",
        "relations_room",
        "rooms_pkey",
    ],
    "threads": [
        "event_keys_pkey",
        "events_m_pkey",
        "latest_edit()",
        "outputs_m_pkey",
        "outputs_s_pkey",
        "redactions_pkey",
        "relations_pkey",
        "rooms_pkey",
        "threads_begun",
    ],
    "thread": [
        "events_m_pkey",
        "latest_edit()",
        "outputs_m_room_timeline_idx",
        "redactions_pkey",
        "relations_pkey",
        "rooms_pkey",
    ],
    "memberships": [
        "events_s_pkey",
        "redactions_pkey",
        "rooms_pkey",
        "state_changes",
    ],
    "memberships-user": [
        "events_s_pkey",
        "memberships_pkey",
        "redactions_pkey",
        "rooms_pkey",
        "state_of_key",
    ],
    "state-changes": [
        "events_s_pkey",
        "redactions_pkey",
        "rooms_pkey",
        "state_changes",
        "state_of_key",
    ],
    "power-levels": [
        "events_s_pkey",
        "redactions_pkey",
        "rooms_pkey",
        "state_of_key",
    ],
    "state-at": [
        "events_s_pkey",
        "redactions_pkey",
        "rooms_pkey",
        "state_until",
    ],
    "state-at-key": [
        "events_s_pkey",
        "redactions_pkey",
        "rooms_pkey",
        "state_until",
    ],
    "state-between": [
        "events_s_pkey",
        "redactions_pkey",
        "resolutions_pkey",
        "rooms_pkey",
        "state_changes",
        "state_of_key",
        "state_until",
    ],
    "who-could-see": [
        "memberships_room",
        "rooms_pkey",
        "sight_by()",
        "sight_of()",
    ],
    "why-state": [
        "why_state()",
    ],
    "receipts": [
        "receipts_position",
        "rooms_pkey",
    ],
    "activity": [
        "activity_of()",
    ],
    "activity-user": [
        "rooms_pkey",
        "users_pkey",
    ],
    "activity-server": [
        "days_pkey",
    ],
}
"""Which indexes read each page; partitions go by their parent's name."""

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
        # Tables of a few pages, which would rather be read from end to end, stand for large ones.
        connection.execute("set enable_seqscan = off")
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
    """The indexes and functions that are read, partitions taken together, and tables that are read from end to end."""
    found = set()
    for node in steps:
        if "Index Name" in node:
            found.add(PARTITION.sub("", node["Index Name"]))
        elif "Function Name" in node:
            found.add(f"{node['Function Name']}()")
        # What is empty is read either way.
        elif node["Node Type"] == "Seq Scan" and node["Actual Rows"]:
            found.add(f"all of {PARTITION.sub('', node['Relation Name'])}")
    return sorted(found)


@pytest.mark.parametrize("name", ASKED)
def test_a_page_is_read_by_the_same_indexes_whatever_the_log_holds(
    log: tuple[psycopg.Connection[Any], dict[str, str]], name: str
) -> None:
    steps = explained(log[0], ASKED[name], log[1])
    assert reading(steps) == PLANS[name]
    touched = max(
        node["Actual Loops"] * (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) for node in steps
    )
    assert touched <= ASKED[name].touches


@pytest.mark.parametrize("name", [name for name, asked in ASKED.items() if "_of(%(room)s)" in asked.statement])
def test_a_page_of_a_room_starts_no_workers_however_cheap_they_seem(
    log: tuple[psycopg.Connection[Any], dict[str, str]], name: str
) -> None:
    connection, about = log
    with connection.transaction(force_rollback=True):
        for setting in (
            "parallel_setup_cost",
            "parallel_tuple_cost",
            "min_parallel_table_scan_size",
            "min_parallel_index_scan_size",
        ):
            connection.execute("select set_config(%s, '0', true)", [setting])
        assert not [
            node for node in explained(connection, ASKED[name], about) if node["Node Type"].startswith("Gather")
        ]
        # With the same settings a count over a view starts some.
        whole = Asked("all messages", "select count(*) from history.thread_replies", 0)
        assert [node for node in explained(connection, whole, about) if node["Node Type"].startswith("Gather")]
