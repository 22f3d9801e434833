import asyncio
from typing import Any

import psycopg
import pytest
from api_server import Api, Client, eventually, part, serving

from eventlog.settings import Settings
from writer.accounts import deactivate_account


def _password(user: Client) -> dict[str, Any]:
    identifier = {"type": "m.id.user", "user": user.user_id}
    return {"type": "m.login.password", "identifier": identifier, "password": user.password}


def _rows(dsn: str, query: str, user_id: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(query, [user_id]).fetchall()


@pytest.mark.slow
async def test_what_the_command_line_deactivates_leaves_its_rooms_like_what_the_endpoint_does(
    api: Api, writers_database: str
) -> None:
    alice, bob = await api.register(), await api.register()
    joined = await bob.create_room(preset="public_chat")
    invited = await bob.create_room(invite=[alice.user_id])
    (await alice.post(f"join/{part(joined)}", {})).ok()
    async with api.process.pool.connection() as connection:
        await deactivate_account(connection, alice.user_id, erase=True)

    async def has_left() -> bool:
        return [await bob.membership(room_id, alice.user_id) for room_id in (joined, invited)] == ["leave", "leave"]

    await eventually(has_left, 20)

    async def is_done() -> bool:
        return not _rows(writers_database, "select 1 from writer.departures where user_id = %s", alice.user_id)

    await eventually(is_done)
    assert _rows(writers_database, "select 1 from roomserver.erased where user_id = %s", alice.user_id)
    assert (await alice.get("account/whoami")).refusal == (401, "M_UNKNOWN_TOKEN")


async def test_a_departure_that_was_begun_is_finished_by_another_process(
    api: Api, writers_database: str, writers_settings: Settings
) -> None:
    alice, bob = await api.register(), await api.register()
    room_id = await bob.create_room(preset="public_chat")
    (await alice.post(f"join/{part(room_id)}", {})).ok()
    # As if a process had died with it: taken up, its time over.
    async with api.process.pool.connection() as connection:
        await deactivate_account(connection, alice.user_id, grace_seconds=3600)
        await connection.execute(
            "update writer.departures set attempts = 1, due_at = now() where user_id = %s", [alice.user_id]
        )
    async with serving(writers_settings):

        async def has_left() -> bool:
            return await bob.membership(room_id, alice.user_id) == "leave"

        await eventually(has_left, 20)


async def test_who_is_erased_leaves_no_profile_and_no_account_data(api: Api, writers_database: str) -> None:
    alice = await api.register()
    user = part(alice.user_id)
    room_id = await alice.create_room()
    (await alice.put(f"profile/{user}/displayname", {"displayname": "Alice"})).ok()
    (await alice.put(f"profile/{user}/org.example.field", {"org.example.field": [1]})).ok()
    (await alice.put(f"user/{user}/account_data/org.example.x", {"secret": 1})).ok()
    (await alice.put(f"user/{user}/rooms/{part(room_id)}/tags/u.work", {})).ok()
    (await alice.post("account/deactivate", {"erase": True, "auth": _password(alice)})).ok()
    assert not _rows(writers_database, "select 1 from roomserver.profiles where user_id = %s", alice.user_id)
    left = _rows(writers_database, "select content from roomserver.account_data where user_id = %s", alice.user_id)
    assert {content for (content,) in left} <= {"{}"}


async def test_who_is_deactivated_but_not_erased_keeps_what_others_know(api: Api, writers_database: str) -> None:
    alice = await api.register()
    (await alice.put(f"profile/{part(alice.user_id)}/displayname", {"displayname": "Alice"})).ok()
    (await alice.post("account/deactivate", {"auth": _password(alice)})).ok()
    assert _rows(writers_database, "select 1 from roomserver.profiles where user_id = %s", alice.user_id)
    assert not _rows(writers_database, "select 1 from writer.devices where user_id = %s", alice.user_id)


async def test_deactivating_while_joining_leaves_nobody_behind(api: Api) -> None:
    alice, bob = await api.register(), await api.register()
    rooms = [await bob.create_room(preset="public_chat") for _ in range(3)]
    joins = [asyncio.create_task(alice.post(f"join/{part(room_id)}", {})) for room_id in rooms]
    (await alice.post("account/deactivate", {"auth": _password(alice)})).ok()
    await asyncio.gather(*joins)
    async with api.process.pool.connection() as connection:
        await connection.execute(
            "insert into writer.departures (user_id) values (%s) on conflict do nothing", [alice.user_id]
        )
    await api.process.departures.finish(alice.user_id, False)
    for room_id in rooms:
        assert await bob.membership(room_id, alice.user_id) in (None, "leave")
