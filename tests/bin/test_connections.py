"""The connection budget is what the page says, and what a whole server keeps within."""

import asyncio
import collections
from pathlib import Path

import pytest
from people import Person
from whole_server import WholeServer

from bin.connections import as_markdown, processes, totals, uses
from eventlog.configuration import load_settings

PAGE = Path(__file__).resolve().parents[2] / "docs" / "connections.md"


def test_the_page_shows_the_budget_of_the_defaults() -> None:
    assert as_markdown(load_settings({})) in PAGE.read_text(encoding="utf-8")


def test_more_processes_and_shards_hold_more() -> None:
    few = totals(load_settings({}))
    many = totals(
        load_settings(
            {"WALDEN_CLIENT_PROCESSES": "3", "WALDEN_LOG_SHARDS": "2", "WALDEN_SERVER_METRICS_LISTEN": "127.0.0.1:1"}
        )
    )
    assert {way: many[way] - few[way] for way in few} == {"pooled": 2 * 21, "direct": 2 * 4 + 2 + 1, "stream": 3}


@pytest.mark.processes
@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_whole_server_holds_no_connection_that_is_not_in_its_budget(tmp_path: Path) -> None:
    environ = {
        "WALDEN_CLIENT_PROCESSES": "2",
        "WALDEN_DATABASE_POOL_MAX": "3",
        "WALDEN_SERVER_METRICS_LISTEN": "127.0.0.1:0",
    }
    with WholeServer(tmp_path / "d", **environ) as server:
        people = [await Person(server.url).register() for _ in range(4)]
        room_id = await people[0].create_room()
        for person in people[1:]:
            await person.join(room_id)
        for person in people:
            person.listen()
        await asyncio.gather(*(p.send(room_id, f"{n}") for p in people for n in range(20)))
        rows = server.rows(
            "select usename, backend_type, application_name from pg_stat_activity"
            " where datname = current_database() and usename like 'walden\\_%'"
        )
        for person in people:
            await person.__aexit__(None, None, None)
        settings = server.settings
    budget: collections.Counter[tuple[str, bool]] = collections.Counter()
    count = processes(settings)
    for use in uses(settings):
        budget[use.role, use.way == "stream"] += use.most * count[use.process]
    held = collections.Counter((row["usename"].rpartition("_")[2], row["backend_type"] == "walsender") for row in rows)
    assert len(rows) > 10
    assert {key: held[key] for key in held if held[key] > budget[key]} == {}, rows
    # And nothing is in it that nobody opens.
    assert {key for key, most in budget.items() if most and not held[key]} == set()
