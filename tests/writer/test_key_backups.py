"""Key backups: versions, the rules of which key stays, pages, and what is refused."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from api_server import Api, Client, part

from writer import key_backups

ROOM, OTHER = "!one:test.example", "!two:test.example"
BACKUP = {
    "algorithm": "m.megolm_backup.v1.curve25519-aes-sha2",
    "auth_data": {"public_key": "abc \0", "signatures": {}},
}


def key(first: int = 3, forwarded: int = 0, verified: bool = False, **data: Any) -> dict[str, Any]:
    return {
        "first_message_index": first,
        "forwarded_count": forwarded,
        "is_verified": verified,
        "session_data": {"ciphertext": "x", **data},
    }


async def made(client: Client) -> str:
    version: str = (await client.post("room_keys/version", BACKUP)).ok()["version"]
    return version


async def test_a_backup_is_described_as_it_was_made_and_changed(api: Api) -> None:
    alice, bob = await api.register(), await api.register()
    assert (await alice.get("room_keys/version")).refusal == (404, "M_NOT_FOUND")
    first, second = await made(alice), await made(alice)
    assert first != second
    newest = (await alice.get("room_keys/version")).ok()
    assert newest["version"] == second
    assert {name: newest[name] for name in ("algorithm", "auth_data", "count")} == {**BACKUP, "count": 0}
    assert (await alice.get(f"room_keys/version/{first}")).ok()["version"] == first
    changed = {**BACKUP, "auth_data": {"public_key": "def"}}
    (await alice.put(f"room_keys/version/{first}", {**changed, "version": first})).ok()
    assert (await alice.get(f"room_keys/version/{first}")).ok()["auth_data"] == {"public_key": "def"}
    for body in ({**changed, "algorithm": "another"}, {**changed, "version": second}):
        assert (await alice.put(f"room_keys/version/{first}", body)).refusal == (400, "M_INVALID_PARAM")
    # Nobody else has it, and a version that only looks like one is none.
    for client, version in ((bob, first), (alice, "1"), (alice, first[:-1] + ("0" if first[-1] != "0" else "1"))):
        assert (await client.get(f"room_keys/version/{version}")).refusal == (404, "M_NOT_FOUND")
        assert (await client.put(f"room_keys/version/{version}", changed)).refusal == (404, "M_NOT_FOUND")
        assert (await client.delete(f"room_keys/version/{version}")).refusal == (404, "M_NOT_FOUND")


async def test_deleting_a_backup_takes_its_keys_and_may_be_repeated(api: Api, writers_database: str) -> None:
    alice = await api.register()
    first, second = await made(alice), await made(alice)
    (await alice.put(f"room_keys/keys/{ROOM}/a?version={second}", key())).ok()
    for _ in range(2):
        assert (await alice.delete(f"room_keys/version/{second}")).ok() == {}
    assert (await alice.get("room_keys/version")).ok()["version"] == first
    for answer in (
        await alice.get(f"room_keys/version/{second}"),
        await alice.get(f"room_keys/keys?version={second}"),
        await alice.put(f"room_keys/keys/{ROOM}/a?version={second}", key()),
        await alice.delete(f"room_keys/keys?version={second}"),
    ):
        assert answer.refusal == (404, "M_NOT_FOUND")
    async with api.process.pool.connection() as connection:
        cursor = await connection.execute(
            "select count(*) from writer.backed_up_keys k join writer.key_backups b on b.id = k.backup where b.user_id = %s",
            [alice.user_id],
        )
        assert await cursor.fetchone() == (0,)


async def test_keys_come_back_by_session_by_room_and_all_at_once(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_backups, "PAGE", 3)
    alice = await api.register()
    version = await made(alice)
    query = f"?version={version}"
    assert (await alice.get(f"room_keys/keys{query}")).ok() == {"rooms": {}}
    assert (await alice.get(f"room_keys/keys/{ROOM}{query}")).ok() == {"sessions": {}}
    rooms = {
        ROOM: {"sessions": {f"s{number}": key(number, odd=number % 2) for number in range(7)}},
        OTHER: {"sessions": {"ü/b": key(text="ü \0")}},
    }
    put = (await alice.put(f"room_keys/keys{query}", {"rooms": {ROOM: rooms[ROOM]}})).ok()
    assert put["count"] == 7
    more = (await alice.put(f"room_keys/keys/{part(OTHER)}{query}", rooms[OTHER])).ok()
    assert more["count"] == 8 and more["etag"] != put["etag"]
    assert (await alice.get(f"room_keys/keys{query}")).ok() == {"rooms": rooms}
    assert (await alice.get(f"room_keys/keys/{part(OTHER)}{query}")).ok() == rooms[OTHER]
    assert (await alice.get(f"room_keys/keys/{ROOM}{query}")).ok() == rooms[ROOM]
    session = part("ü/b")
    one = (await alice.get(f"room_keys/keys/{part(OTHER)}/{session}{query}")).ok()
    assert one == rooms[OTHER]["sessions"]["ü/b"]
    assert (await alice.get(f"room_keys/keys/{ROOM}/nowhere{query}")).refusal == (404, "M_NOT_FOUND")

    assert (await alice.delete(f"room_keys/keys/{ROOM}/s0{query}")).ok()["count"] == 7
    unchanged = (await alice.delete(f"room_keys/keys/{ROOM}/s0{query}")).ok()
    assert unchanged["count"] == 7
    assert (await alice.get("room_keys/version")).ok()["etag"] == unchanged["etag"]
    assert (await alice.delete(f"room_keys/keys/{ROOM}{query}")).ok()["count"] == 1
    assert (await alice.get(f"room_keys/keys{query}")).ok() == {"rooms": {OTHER: rooms[OTHER]}}
    assert (await alice.delete(f"room_keys/keys{query}")).ok()["count"] == 0


async def test_a_worse_key_never_takes_the_place_of_a_better_one(api: Api) -> None:
    alice = await api.register()
    version = await made(alice)
    path = f"room_keys/keys/{ROOM}/s?version={version}"
    order = [
        key(*one)
        for one in ((9, 9, False), (9, 8, False), (8, 9, False), (99, 99, True), (98, 99, True), (98, 0, True))
    ]
    etags = set()
    for better, one in enumerate(order):
        etags.add((await alice.put(path, one)).ok()["etag"])
        for worse in order[: better + 1]:
            answer = (await alice.put(path, {**worse, "session_data": {"late": True}})).ok()
            assert answer["count"] == 1
            etags.add(answer["etag"])
        assert (await alice.get(path)).ok() == one
    assert len(etags) == len(order)


async def test_keys_go_to_the_newest_backup_alone(api: Api) -> None:
    alice = await api.register()
    first, second = await made(alice), await made(alice)
    for path, body in (
        (f"keys/{ROOM}/s", key()),
        (f"keys/{ROOM}", {"sessions": {"s": key()}}),
        ("keys", {"rooms": {ROOM: {"sessions": {"s": key()}}}}),
    ):
        answer = await alice.put(f"room_keys/{path}?version={first}", body)
        assert answer.refusal == (403, "M_WRONG_ROOM_KEYS_VERSION")
        assert answer.body["current_version"] == second
        (await alice.put(f"room_keys/{path}?version={second}", body)).ok()
    assert (await alice.get(f"room_keys/version/{second}")).ok()["count"] == 1


async def test_keys_sent_at_once_are_all_there_and_counted(api: Api) -> None:
    alice = await api.register()
    version = await made(alice)
    bodies = [{"sessions": {f"{one}": key(one), f"{one + 1}": key(one)}} for one in range(20)]
    for answer in await asyncio.gather(*(alice.put(f"room_keys/keys/{ROOM}?version={version}", one) for one in bodies)):
        answer.ok()
    assert (await alice.get(f"room_keys/version/{version}")).ok()["count"] == 21
    assert len((await alice.get(f"room_keys/keys/{ROOM}?version={version}")).ok()["sessions"]) == 21


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        ({}, (400, "M_MISSING_PARAM")),
        ({"algorithm": "a"}, (400, "M_MISSING_PARAM")),
        ({"algorithm": 5, "auth_data": {}}, (400, "M_BAD_JSON")),
        ({"algorithm": "", "auth_data": {}}, (400, "M_INVALID_PARAM")),
        ({"algorithm": "a" * 256, "auth_data": {}}, (400, "M_INVALID_PARAM")),
        ({"algorithm": "a", "auth_data": []}, (400, "M_BAD_JSON")),
        ({"algorithm": "a", "auth_data": {"a": "a" * 70_000}}, (413, "M_TOO_LARGE")),
    ],
)
async def test_what_is_no_backup_is_refused(api: Api, body: Any, refusal: tuple[int, str]) -> None:
    alice = await api.register()
    assert (await alice.post("room_keys/version", body)).refusal == refusal


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"first_message_index": None}, (400, "M_MISSING_PARAM")),
        ({"forwarded_count": -1}, (400, "M_BAD_JSON")),
        ({"forwarded_count": True}, (400, "M_BAD_JSON")),
        ({"is_verified": 1}, (400, "M_BAD_JSON")),
        ({"session_data": None}, (400, "M_MISSING_PARAM")),
        ({"session_data": "x"}, (400, "M_BAD_JSON")),
        ({"session_data": {"a": "a" * 20_000}}, (413, "M_TOO_LARGE")),
    ],
    ids=json.dumps,
)
async def test_what_is_no_key_is_refused_and_nothing_is_kept(api: Api, changes: Any, refusal: tuple[int, str]) -> None:
    alice = await api.register()
    version = await made(alice)
    bad = {**key(), **changes}
    assert (await alice.put(f"room_keys/keys/{ROOM}/s?version={version}", bad)).refusal == refusal
    both = {"rooms": {ROOM: {"sessions": {"good": key(), "bad": bad}}}}
    assert (await alice.put(f"room_keys/keys?version={version}", both)).refusal == refusal
    assert (await alice.get(f"room_keys/keys?version={version}")).ok() == {"rooms": {}}


async def test_bounds_hold(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_backups, "MOST_KEYS", 3)
    monkeypatch.setattr(key_backups, "MOST_BACKUPS", 2)
    monkeypatch.setattr(key_backups, "KEPT", 2)
    alice = await api.register()
    assert (await alice.put(f"room_keys/keys/{ROOM}/s", key())).refusal == (400, "M_MISSING_PARAM")
    await made(alice)
    version = await made(alice)
    assert (await alice.post("room_keys/version", BACKUP)).refusal == (400, "M_LIMIT_EXCEEDED")
    path = f"room_keys/keys/{ROOM}?version={version}"
    (await alice.put(path, {"sessions": {"a": key(), "b": key()}})).ok()
    assert (await alice.put(path, {"sessions": {"c": key(), "d": key()}})).refusal == (400, "M_LIMIT_EXCEEDED")
    assert (await alice.get(f"room_keys/version/{version}")).ok()["count"] == 2
    gone = []
    for _ in range(5):
        (await alice.delete(f"room_keys/version/{version}")).ok()
        gone.append(version)
        version = await made(alice)
    known = [(await alice.delete(f"room_keys/version/{one}")).status for one in gone]
    assert known == [404, 404, 404, 200, 200]


async def test_deactivation_deletes_backups(api: Api) -> None:
    alice = await api.register()
    version = await made(alice)
    (await alice.put(f"room_keys/keys/{ROOM}/s?version={version}", key())).ok()
    asked = await alice.post("account/deactivate", {})
    auth = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": alice.user_id},
        "password": alice.password,
        "session": asked.body["session"],
    }
    (await alice.post("account/deactivate", {"auth": auth})).ok()
    async with api.process.pool.connection() as connection:
        cursor = await connection.execute("select count(*) from writer.key_backups where user_id = %s", [alice.user_id])
        assert await cursor.fetchone() == (0,)
