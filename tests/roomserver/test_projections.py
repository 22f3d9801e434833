"""What the room server has stored is what the log says, and what is not is found and mended."""

from __future__ import annotations

import collections
from pathlib import Path

import pytest
from local_rooms import talk
from psycopg import AsyncConnection, sql
from random_life import Life
from running_roomserver import judged, receive, running, settings_for

from matrix.errors import MatrixError
from matrix.events import Event
from roomserver import judge, projections
from roomserver.projections import DERIVED, PROJECTIONS, Difference, RoomServerRuns, differences, rebuild
from tests.matrix.room_dag import RoomDag

pytestmark = pytest.mark.postgres


async def connect(dsn: str) -> AsyncConnection:
    return await AsyncConnection.connect(dsn, autocommit=True)


PLAIN = [name for name in PROJECTIONS if name not in DERIVED]


async def filled(dsn: str, folder: Path, seed: int, things: int = 100) -> Life:
    """A database after some life, with no room server running any more."""
    settings = settings_for(dsn, folder)
    async with running(settings), talk(settings) as t:
        return await Life(t, seed).live(things)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_after_anything_that_local_users_do_stored_projections_are_the_rebuilt_ones(
    seed: int, provisioned: str, tmp_path: Path
) -> None:
    life = await filled(provisioned, tmp_path, seed, 200)
    async with await connect(provisioned) as connection:
        assert await differences(connection) == []
        for name in PLAIN:
            row = await (
                await connection.execute(
                    sql.SQL("select count(*) from roomserver.{}").format(sql.Identifier(name)), prepare=False
                )
            ).fetchone()
            assert row is not None and row[0] > 0, f"{name} is empty: nothing was compared"
    assert life.refused > 0


@pytest.mark.parametrize("version", ["1", "12"])
async def test_after_forks_and_resolutions_stored_projections_are_the_rebuilt_ones(
    version: str, provisioned: str, tmp_path: Path
) -> None:
    dag = RoomDag(version, 21, servers=3, users_per_server=3).grow(60)
    count = receive(provisioned, dag.events.values())
    async with running(settings_for(provisioned, tmp_path)):
        await judged(provisioned, count)
    async with await connect(provisioned) as connection:
        assert await differences(connection) == []
        assert await differences(connection, room_id=dag.room_id) == []


@pytest.mark.slow
async def test_an_entry_in_quarantine_makes_no_difference(
    provisioned: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poisoned(_: object, event: Event, *more: object) -> None:
        if event.content.get("body") == "poison":
            raise RuntimeError("cannot digest this")

    monkeypatch.setattr(judge, "relate", poisoned)
    settings = settings_for(provisioned, tmp_path)
    async with running(settings), talk(settings) as t:
        room = await t.room()
        with pytest.raises(MatrixError):
            await t.writer.send([t.message(room, "poison")])
        await t.writer.send([t.message(room, "goes on")])
    async with await connect(provisioned) as connection:
        assert await differences(connection) == []


# A column that is wrong, in a row that most rooms and users have: by projection.
BEHIND_ITS_BACK = {
    "rooms": "room_version = '3'",
    "state": "valid_to = valid_to - 1",
    "memberships": "forgotten = not forgotten",
    "heads": "extremities = '{$other}', joined = joined + 1",
    "receipts": "event_id = '$other'",
    "account_data": "content = '{}'",
    "profiles": "value = '1'",
    "presence": "presence = 'unavailable', position = position + 1",
    "user_keys": "key = '{}'",
    "device_lists": "position = position + 1",
    "to_device": "content = '{}'",
    "aliases": "creator = '@other:test.example'",
    "directory": "position = position + 1",
    "redactions": "redaction = '$other'",
    "relations": "entry = entry + 1",
    "early_redactions": "entry = entry + 1",
    "reports": "reason = 'other'",
}


async def test_rows_changed_behind_its_back_are_found_and_mended(provisioned: str, tmp_path: Path) -> None:
    await filled(provisioned, tmp_path, 4)
    async with await connect(provisioned) as connection:
        for name in PLAIN:
            change = sql.SQL("update roomserver.{} set ").format(sql.Identifier(name)) + sql.SQL(BEHIND_ITS_BACK[name])
            changed = (await connection.execute(change)).rowcount
            found = await differences(connection, most=10_000)
            # Threads follow relations.
            assert {one.projection for one in found} - {"threads"} == {name}
            found = [one for one in found if one.projection == name]
            assert 0 < len(found) <= changed
            assert all(one.stored is not None and one.rebuilt is not None for one in found)
            assert await rebuild(connection, name) == len(found)
            assert await differences(connection) == []


async def test_every_projection_is_made_again_from_nothing_a_few_rows_at_a_time(
    provisioned: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projections, "MAX_ROWS", 4)
    await filled(provisioned, tmp_path, 5)
    async with await connect(provisioned) as connection:
        gone = {}
        for name in (name for name in PLAIN if name != "rooms"):
            where = "where line = 0" if name == "state" else ""
            delete = sql.SQL("delete from roomserver.{} ").format(sql.Identifier(name)) + sql.SQL(where)
            gone[name] = (await connection.execute(delete)).rowcount
        found = await differences(connection, most=10_000)
        assert all(one.stored is None for one in found)
        assert collections.Counter(one.projection for one in found) == gone
        for name, count in gone.items():
            assert await rebuild(connection, name) == count
        assert await differences(connection) == []


SURPLUS = {
    "state": "insert into roomserver.state (room, type, state_key, valid_from, entry)"
    " select room, 'x', valid_from::text, valid_from, entry from roomserver.state limit 3",
    "profiles": "insert into roomserver.profiles"
    " select '@other:test.example', 'x', '1', 0, max(position) from eventlog.outputs",
    "relations": "insert into roomserver.relations"
    " select '$other', 'x', max(timeline), 1, 1, '$another', '@other:test.example' from eventlog.outputs",
}


async def test_rows_that_should_not_be_there_are_found_and_taken_away(provisioned: str, tmp_path: Path) -> None:
    await filled(provisioned, tmp_path, 6, 40)
    async with await connect(provisioned) as connection:
        for name, insert in SURPLUS.items():
            added = (await connection.execute(insert)).rowcount  # type: ignore[call-overload]
            found = await differences(connection)
            assert len(found) == added and all(one.rebuilt is None for one in found)
            assert await rebuild(connection, name) == added
            assert await differences(connection) == []


async def test_what_is_older_than_the_log_stands_as_it_is(provisioned: str, tmp_path: Path) -> None:
    await filled(provisioned, tmp_path, 7, 20)
    async with await connect(provisioned) as connection:
        # As if its entry had been dropped with a partition.
        await connection.execute("insert into eventlog.edges (kind, shard, entry, position) values ('u', 0, 1, 1)")
        await connection.execute(
            "insert into roomserver.receipts select nid, '@old:test.example', 'm.read', '', '$old', null, 1, 0, 1"
            " from roomserver.rooms"
        )
        assert await differences(connection) == []


async def test_nothing_is_rebuilt_while_a_room_server_runs(provisioned: str, tmp_path: Path) -> None:
    settings = settings_for(provisioned, tmp_path)
    async with running(settings), talk(settings) as t, await connect(provisioned) as connection:
        room = await t.room()
        await connection.execute("update roomserver.heads set joined = 7")
        with pytest.raises(RoomServerRuns, match="stop Walden"):
            await rebuild(connection, "heads")
        (found,) = await differences(connection, room_id=room)
        assert (found.key, found.stored and found.stored["joined"]) == ({"room": 1}, 7)
        # It holds nothing that would keep the next room server out.
        assert (
            await (
                await connection.execute(
                    "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()"
                )
            ).fetchone()
        ) == (0,)


async def test_a_mended_room_goes_on(provisioned: str, tmp_path: Path) -> None:
    settings = settings_for(provisioned, tmp_path)
    async with running(settings), talk(settings) as t:
        room = await t.room()
        await t.writer.send([t.message(room, "before")])
    async with await connect(provisioned) as connection:
        await connection.execute("delete from roomserver.heads")
        assert await rebuild(connection, "heads") == 1
    async with running(settings), talk(settings) as t:
        await t.writer.send([t.message(room, "after")])
    async with await connect(provisioned) as connection:
        assert await differences(connection) == []
        row = await (await connection.execute("select cardinality(extremities) from roomserver.heads")).fetchone()
        assert row == (1,)


def test_a_difference_says_what_is_wrong() -> None:
    wrong = Difference("heads", {"room": 1}, {"room": 1, "joined": 7}, {"room": 1, "joined": 2})
    assert str(wrong) == "heads: room 1: joined is 7, should be 2"
    assert str(Difference("heads", {"room": 1}, None, {"room": 1})) == "heads: missing: room 1"
    assert str(Difference("heads", {"room": 1}, {"room": 1}, None)) == "heads: should not be there: room 1"
