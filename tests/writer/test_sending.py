import asyncio
from pathlib import Path
from typing import Any

import psycopg
import pytest
from api_server import Api, Client, part, serving, settings_for

SEND = "send/m.room.message"


async def test_a_repeated_transaction_gets_the_first_ones_event(
    api: Api, writers_database: str, writers_folder: Path
) -> None:
    alice = await api.register()
    room_id = await alice.create_room()
    first = await alice.send(room_id, "one", "txn")
    assert await alice.send(room_id, "two", "txn") == first
    async with serving(settings_for(writers_database, writers_folder)) as other:
        assert await Client(other, alice.user_id, alice.token).send(room_id, "three", "txn") == first
    # Another device, another type, another room: another transaction.
    assert await (await api.login(alice)).send(room_id, "one", "txn") != first
    other_type = await alice.put(f"rooms/{room_id}/send/org.example/txn", {})
    assert other_type.ok()["event_id"] != first
    assert await alice.send(await alice.create_room(), "one", "txn") != first


async def test_the_same_transaction_sent_at_once_is_one_event(api: Api, writers_database: str) -> None:
    alice = await api.register()
    room_id = await alice.create_room()
    sent = await asyncio.gather(*(alice.send(room_id, f"text {n}", "same") for n in range(8)))
    assert len(set(sent)) == 1
    with psycopg.connect(writers_database) as connection:
        count = connection.execute(
            "select count(*) from eventlog.events where room_id = %s and type = 'm.room.message'", [room_id]
        ).fetchone()
    assert count == (1,)


async def test_only_members_send(api: Api) -> None:
    alice, bob = await api.register(), await api.register()
    room_id = await alice.create_room(preset="public_chat")
    assert (await bob.put(f"rooms/{room_id}/{SEND}/1", {})).refusal == (403, "M_FORBIDDEN")
    answer = await bob.put(f"rooms/!nowhere:test.example/{SEND}/1", {})
    assert answer.refusal in ((403, "M_FORBIDDEN"), (404, "M_NOT_FOUND"))


async def test_strings_may_contain_the_character_zero_everywhere(api: Api) -> None:
    alice = await api.register()
    room_id = await alice.create_room()
    content = {"body": "nul \0 \U0010ffff", "\0": {"\0": ["\0"]}}
    (await alice.put(f"rooms/{room_id}/{SEND}/{part('txn' + chr(0))}", content)).ok()
    (await alice.put(f"rooms/{room_id}/send/{part('org' + chr(0))}/1", content)).ok()
    path = f"rooms/{room_id}/state/{part('type' + chr(0))}/{part('key' + chr(0))}"
    (await alice.put(path, content)).ok()
    assert await alice.state(room_id, "type\0", "key\0") == content


async def test_what_a_redaction_names_may_be_no_event_at_all(api: Api) -> None:
    alice = await api.register()
    room_id = await alice.create_room()
    for named in ("$a\0b", "\0" * 2_000, "nothing", 5):
        (await alice.put(f"rooms/{room_id}/state/m.room.redaction/", {"redacts": named})).ok()
    assert (await alice.put(f"rooms/{room_id}/send/m.room.redaction/1", {"redacts": "$a\0b"})).refusal == (
        404,
        "M_NOT_FOUND",
    )


async def test_a_membership_of_what_is_no_user_is_refused(api: Api) -> None:
    alice = await api.register()
    room_id = await alice.create_room()
    for key in ("@a\0:test.example", "\0", "alice", "@x"):
        answer = await alice.put(f"rooms/{room_id}/state/m.room.member/{part(key)}", {"membership": "invite"})
        assert answer.refusal == (403, "M_FORBIDDEN")
    for invite in ({}, "x", None, {"signed": 1}):
        content = {"membership": "join", "third_party_invite": invite}
        answer = await alice.put(f"rooms/{room_id}/state/m.room.member/{part(alice.user_id)}", content)
        assert answer.refusal == (400, "M_BAD_JSON")


@pytest.mark.parametrize("version", ["1", "9", "12"])
@pytest.mark.parametrize(
    "odd", [{"ban": "50"}, {"kick": None}, {"events": {"x": 1.0}}, {"events": None}, {"notifications": []}]
)
async def test_nobody_sends_power_levels_that_are_no_integers_in_any_version(
    version: str, odd: dict[str, Any], api: Api
) -> None:
    alice = await api.register()
    room_id = await alice.create_room(room_version=version)
    content = {**await alice.state(room_id, "m.room.power_levels"), **odd}
    answer = await alice.put(f"rooms/{part(room_id)}/state/m.room.power_levels/", content)
    assert answer.refusal == (400, "M_BAD_JSON")


@pytest.mark.parametrize("content", [b'{"n": 1.5}', b'{"n": 9007199254740992}', b'{"n": [1e300]}', b'{"n": 1e400}'])
async def test_numbers_beyond_canonical_json_are_bad(api: Api, content: bytes) -> None:
    alice = await api.register()
    room_id = await alice.create_room()
    answer = await alice.call("PUT", f"rooms/{room_id}/{SEND}/1", content=content)
    assert answer.refusal == (400, "M_BAD_JSON")
    answer = await alice.call("PUT", f"rooms/{room_id}/state/org.example/", content=content)
    assert answer.refusal == (400, "M_BAD_JSON")


async def test_an_event_may_have_65536_bytes_and_no_more(api: Api, writers_database: str) -> None:
    alice = await api.register()
    room_id = await alice.create_room()

    async def send(length: int, txn_id: str) -> tuple[int, str | None]:
        answer = await alice.put(f"rooms/{room_id}/{SEND}/{txn_id}", {"body": "x" * length})
        return answer.refusal

    assert await send(60_000, "probe") == (200, None)
    with psycopg.connect(writers_database) as connection:
        row = connection.execute(
            "select octet_length(json) from eventlog.events where room_id = %s and txn_id = 'probe'", [room_id]
        ).fetchone()
    assert row is not None
    fits = 60_000 + 65_536 - int(row[0])
    assert await send(fits, "fits") == (200, None)
    assert await send(fits + 1, "over") == (413, "M_TOO_LARGE")


@pytest.mark.parametrize(
    ("path", "refusal"),
    [
        ("send/m.room.message/" + "x" * 300, (400, "M_INVALID_PARAM")),
        ("send/m.room.message/", (400, "M_INVALID_PARAM")),
        ("send//1", (400, "M_INVALID_PARAM")),
        ("send/" + "x" * 256 + "/1", (413, "M_TOO_LARGE")),
        ("state/" + "x" * 256 + "/", (413, "M_TOO_LARGE")),
        ("state/x/" + "x" * 256, (413, "M_TOO_LARGE")),
    ],
)
async def test_a_path_out_of_bounds_is_refused(api: Api, path: str, refusal: tuple[int, str]) -> None:
    alice = await api.register()
    room_id = await alice.create_room()
    assert (await alice.put(f"rooms/{room_id}/{path}", {})).refusal == refusal


@pytest.mark.parametrize("body", [[], "text", 5, None])
async def test_content_is_an_object(api: Api, body: Any) -> None:
    alice = await api.register()
    room_id = await alice.create_room()
    expected = (400, "M_NOT_JSON" if body is None else "M_BAD_JSON")
    assert (await alice.put(f"rooms/{room_id}/{SEND}/1", body)).refusal == expected
    assert (await alice.put(f"rooms/{room_id}/state/org.example", body)).refusal == expected


async def test_state_can_be_set_with_and_without_a_key(api: Api) -> None:
    alice = await api.register()
    room_id = await alice.create_room()
    for path, key in (("state/m.room.topic", ""), ("state/m.room.name/", ""), ("state/org.example/k", "k")):
        (await alice.put(f"rooms/{room_id}/{path}", {"value": path})).ok()
        assert await alice.state(room_id, path.split("/")[1], key) == {"value": path}


async def test_state_that_is_so_already_is_not_sent_again(api: Api) -> None:
    alice, bob = await api.register(), await api.register()
    levels = {"events": {"org.example": 0}}
    room_id = await alice.create_room(preset="public_chat", power_level_content_override=levels)
    path = f"rooms/{room_id}/state/org.example"
    first = (await alice.put(path, {"a": 1, "b": [True]})).ok()["event_id"]
    assert (await alice.put(path, {"b": [True], "a": 1})).ok()["event_id"] == first
    assert (await alice.put(path, {"a": 1, "b": [1]})).ok()["event_id"] != first
    assert (await alice.put(path, {"a": 1, "b": [True]})).ok()["event_id"] != first
    (await bob.post(f"join/{room_id}", {})).ok()
    assert (await bob.put(path, {"a": 1, "b": [True]})).ok()["event_id"] != first


async def test_state_needs_power(api: Api) -> None:
    alice, bob = await api.register(), await api.register()
    room_id = await alice.create_room(preset="public_chat")
    (await bob.post(f"join/{room_id}", {})).ok()
    assert (await bob.put(f"rooms/{room_id}/state/m.room.name", {"name": "x"})).refusal == (403, "M_FORBIDDEN")
    assert (await alice.put(f"rooms/{room_id}/state/m.room.create", {})).refusal == (400, "M_BAD_STATE")
    assert (await alice.put(f"rooms/{room_id}/send/m.room.create/1", {})).refusal == (400, "M_BAD_STATE")


async def test_power_levels_that_nobody_could_set_are_bad_and_tell_strangers_nothing(api: Api) -> None:
    alice, bob = await api.register(), await api.register()
    room_id = await alice.create_room(room_version="12")
    path = f"rooms/{part(room_id)}/state/m.room.power_levels"
    for levels in ({"users": {alice.user_id: 100}}, {"users": {"nobody": 1}}, {"ban": "50"}, {"events": []}):
        assert (await alice.put(path, levels)).refusal == (400, "M_BAD_JSON"), levels
        assert (await bob.put(path, levels)).refusal == (403, "M_FORBIDDEN"), levels
    (await alice.put(path, {"users": {bob.user_id: 100}})).ok()


async def test_a_canonical_alias_has_to_point_to_the_room(api: Api) -> None:
    alice = await api.register()
    room_id, other = await alice.create_room(), await alice.create_room()
    for alias, target in (("#canonical.here:test.example", room_id), ("#canonical.there:test.example", other)):
        (await alice.put(f"directory/room/{part(alias)}", {"room_id": target})).ok()
    path = f"rooms/{room_id}/state/m.room.canonical_alias"
    (await alice.put(path, {"alias": "#canonical.here:test.example"})).ok()
    for content, errcode in (
        ({"alias": "#canonical.there:test.example"}, "M_BAD_ALIAS"),
        ({"alias": "#canonical.nowhere:test.example"}, "M_BAD_ALIAS"),
        ({"alt_aliases": ["#canonical.there:test.example"]}, "M_BAD_ALIAS"),
        ({"alias": "canonical"}, "M_INVALID_PARAM"),
        ({"alias": 5}, "M_INVALID_PARAM"),
        ({"alt_aliases": [5]}, "M_INVALID_PARAM"),
        ({"alt_aliases": "x"}, "M_BAD_JSON"),
    ):
        assert (await alice.put(path, content)).refusal == (400, errcode)
    (await alice.put(path, {"alt_aliases": ["#canonical.here:test.example"]})).ok()
    # What was there before may stay, even when the alias has gone since: by one who could not take it out of the room.
    bob, his = await api.register(), "#canonical.his:test.example"
    (await alice.post(f"rooms/{room_id}/invite", {"user_id": bob.user_id})).ok()
    (await bob.post(f"join/{room_id}", {})).ok()
    (await bob.put(f"directory/room/{part(his)}", {"room_id": room_id})).ok()
    (await alice.put(path, {"alt_aliases": [his]})).ok()
    (await bob.delete(f"directory/room/{part(his)}")).ok()
    (await alice.put(path, {"alias": his})).ok()


async def test_one_redacts_ones_own_events_and_with_power_others(api: Api) -> None:
    alice, bob = await api.register(), await api.register()
    room_id = await alice.create_room(preset="public_chat")
    (await bob.post(f"join/{room_id}", {})).ok()
    of_bob, of_alice = await bob.send(room_id), await alice.send(room_id)
    path = f"rooms/{room_id}/redact"
    first = (await bob.put(f"{path}/{of_bob}/1", {"reason": "typo"})).ok()["event_id"]
    assert (await bob.put(f"{path}/{of_bob}/1", {})).ok()["event_id"] == first
    assert (await bob.put(f"{path}/{of_alice}/2", {})).refusal == (403, "M_FORBIDDEN")
    (await alice.put(f"{path}/{await bob.send(room_id)}/3")).ok()


@pytest.mark.parametrize("version", ["10", "12"])
async def test_what_was_redacted_can_be_said_again_and_counts_no_more(api: Api, version: str) -> None:
    alice = await api.register()
    room_id = await alice.create_room(room_version=version, preset="public_chat")
    state = f"rooms/{room_id}/state"
    for kind, key, content in (
        ("m.room.topic", "", {"topic": "frogs"}),
        ("m.room.member", alice.user_id, {"membership": "join", "displayname": "Alice"}),
    ):
        first = (await alice.put(f"{state}/{kind}/{key}", content)).ok()["event_id"]
        assert (await alice.put(f"{state}/{kind}/{key}", content)).ok()["event_id"] == first
        (await alice.put(f"rooms/{room_id}/redact/{part(first)}/1", {})).ok()
        assert (await alice.get(f"{state}/{kind}/{key}")).ok() != content
        assert (await alice.put(f"{state}/{kind}/{key}", content)).ok()["event_id"] != first
        assert (await alice.get(f"{state}/{kind}/{key}")).ok() == content
    # What survives has not changed.
    rule = (await alice.put(f"{state}/m.room.join_rules/", {"join_rule": "invite"})).ok()["event_id"]
    (await alice.put(f"rooms/{room_id}/redact/{part(rule)}/1", {})).ok()
    assert (await alice.put(f"{state}/m.room.join_rules/", {"join_rule": "invite"})).ok()["event_id"] == rule
    # An alias that was redacted away does not come back when another one goes.
    one, two = (f"#redacted.{version}.{name}:test.example" for name in ("one", "two"))
    for alias in (one, two):
        (await alice.put(f"directory/room/{part(alias)}", {"room_id": room_id})).ok()
    named = (await alice.put(f"{state}/m.room.canonical_alias/", {"alias": one, "alt_aliases": [two]})).ok()["event_id"]
    (await alice.put(f"rooms/{room_id}/redact/{part(named)}/1", {})).ok()
    (await alice.delete(f"directory/room/{part(one)}")).ok()
    assert (await alice.get(f"{state}/m.room.canonical_alias/")).ok() == {}


async def test_what_cannot_be_redacted_is_refused(api: Api) -> None:
    alice, bob = await api.register(), await api.register()
    room_id, other = await alice.create_room(preset="public_chat"), await alice.create_room()
    event_id, elsewhere = await alice.send(room_id), await alice.send(other)
    path = f"rooms/{room_id}/redact"
    for missing in (elsewhere, "$nothing", "nothing"):
        assert (await alice.put(f"{path}/{missing}/1", {})).refusal == (404, "M_NOT_FOUND")
    assert (await bob.put(f"{path}/{event_id}/1", {})).refusal == (403, "M_FORBIDDEN")
    assert (await alice.put(f"{path}/{event_id}/1", {"reason": 5})).refusal == (400, "M_BAD_JSON")
    create = "$" + room_id[1:]
    assert (await alice.put(f"{path}/{create}/1", {})).refusal == (403, "M_FORBIDDEN")


@pytest.mark.parametrize("version", ["1", "3", "10", "11"])
async def test_redactions_are_written_as_each_room_version_wants_them(
    api: Api, writers_database: str, version: str
) -> None:
    alice = await api.register()
    room_id = await alice.create_room(room_version=version)
    event_id = await alice.send(room_id)
    redaction = (await alice.put(f"rooms/{room_id}/redact/{part(event_id)}/1", {"reason": "r"})).ok()["event_id"]
    with psycopg.connect(writers_database) as connection:
        row = connection.execute("select json::json from eventlog.events where event_id = %s", [redaction]).fetchone()
    assert row is not None
    pdu: dict[str, Any] = row[0]
    assert (pdu["content"] if version == "11" else pdu)["redacts"] == event_id
    assert pdu["content"]["reason"] == "r"
