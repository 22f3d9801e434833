import asyncio
from typing import Any

import psycopg
import pytest
from api_server import Api, Client, part

from matrix.room_versions import ROOM_VERSIONS


def _types(dsn: str, room_id: str) -> list[tuple[str, str]]:
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "select type, state_key from eventlog.events where room_id = %s and kind <> 'u' order by seq", [room_id]
        ).fetchall()
    return [(row[0], row[1]) for row in rows]


async def test_events_come_in_the_order_of_the_specification(api: Api, writers_database: str) -> None:
    alice, bob = await api.register(), await api.register()
    room_id = await alice.create_room(
        visibility="public",
        room_alias_name="in.order",
        name="Name",
        topic="Topic",
        invite=[bob.user_id],
        initial_state=[
            {"type": "m.room.avatar", "content": {"url": "mxc://a/b"}},
            {"type": "org.example", "state_key": "key", "content": {}},
        ],
    )
    assert _types(writers_database, room_id) == [
        ("m.room.create", ""),
        ("m.room.member", alice.user_id),
        ("m.room.power_levels", ""),
        ("m.room.canonical_alias", ""),
        ("m.room.join_rules", ""),
        ("m.room.history_visibility", ""),
        ("m.room.guest_access", ""),
        ("m.room.avatar", ""),
        ("org.example", "key"),
        ("m.room.name", ""),
        ("m.room.topic", ""),
        ("m.room.member", bob.user_id),
    ]
    alias = "#in.order:test.example"
    assert await alice.state(room_id, "m.room.canonical_alias") == {"alias": alias}
    assert await alice.state(room_id, "m.room.name") == {"name": "Name"}
    assert await alice.state(room_id, "m.room.topic") == {
        "topic": "Topic",
        "m.topic": {"m.text": [{"body": "Topic"}]},
    }
    assert (await alice.get(f"directory/room/{part(alias)}")).ok()["room_id"] == room_id
    assert (await api.anybody.get(f"directory/list/room/{room_id}")).ok() == {"visibility": "public"}


@pytest.mark.parametrize(
    ("options", "rules"),
    [
        ({}, ("invite", "shared", "can_join")),
        ({"visibility": "private"}, ("invite", "shared", "can_join")),
        ({"visibility": "public"}, ("public", "shared", "forbidden")),
        ({"preset": "private_chat", "visibility": "public"}, ("invite", "shared", "can_join")),
        ({"preset": "trusted_private_chat"}, ("invite", "shared", "can_join")),
        ({"preset": "public_chat"}, ("public", "shared", "forbidden")),
    ],
)
async def test_a_preset_sets_who_may_join_and_see(api: Api, options: dict[str, Any], rules: tuple[str, ...]) -> None:
    alice = await api.register()
    room_id = await alice.create_room(**options)
    join, history, guests = [
        await alice.state(room_id, f"m.room.{name}") for name in ("join_rules", "history_visibility", "guest_access")
    ]
    assert join == {"join_rule": rules[0]}
    assert history == {"history_visibility": rules[1]}
    assert guests == {"guest_access": rules[2]}


@pytest.mark.parametrize("version", sorted(ROOM_VERSIONS, key=int))
async def test_every_room_version_makes_a_room_that_one_can_talk_in(api: Api, version: str) -> None:
    alice = await api.register()
    room_id = await alice.create_room(room_version=version, preset="public_chat", name="x")
    create = await alice.state(room_id, "m.room.create")
    assert create is not None and create["room_version"] == version
    assert ("creator" in create) == (int(version) < 11)
    assert (":" in room_id) == (int(version) < 12)
    levels = await alice.state(room_id, "m.room.power_levels")
    assert levels is not None
    assert levels["users"] == ({} if version == "12" else {alice.user_id: 100})
    assert levels["events"]["m.room.tombstone"] == (150 if version == "12" else 100)
    await alice.send(room_id)


@pytest.mark.parametrize(
    ("override", "level"),
    [
        ({"state_default": 200}, 201),
        ({"events": {"m.room.name": 0}}, 150),
        ({"events": {"m.room.tombstone": 10}}, 10),
        ({"state_default": -1, "events": {}}, 150),
    ],
)
async def test_replacing_a_room_takes_more_than_other_state_unless_it_is_said_otherwise(
    api: Api, override: dict[str, Any], level: int
) -> None:
    alice = await api.register()
    room_id = await alice.create_room(power_level_content_override=override)
    levels: Any = await alice.state(room_id, "m.room.power_levels")
    assert levels["events"]["m.room.tombstone"] == level


async def test_the_trusted_are_creators_where_the_version_has_them_and_have_100_elsewhere(api: Api) -> None:
    alice, bob, carol = [await api.register() for _ in range(3)]
    options: dict[str, Any] = {"preset": "trusted_private_chat", "invite": [bob.user_id]}
    newest = await alice.create_room(
        **options, creation_content={"additional_creators": [carol.user_id, bob.user_id, alice.user_id]}
    )
    create = await alice.state(newest, "m.room.create")
    assert create is not None and create["additional_creators"] == [carol.user_id, bob.user_id]
    old = await alice.create_room(**options, room_version="11")
    levels = await alice.state(old, "m.room.power_levels")
    assert levels is not None and levels["users"] == {alice.user_id: 100, bob.user_id: 100}
    create = await alice.state(old, "m.room.create")
    assert create is not None and "additional_creators" not in create


async def test_creation_content_is_kept_but_for_what_the_server_says(api: Api) -> None:
    alice = await api.register()
    given = {"m.federate": False, "type": "m.space", "creator": "@x:y", "room_version": "1", "org.example": 1}
    room_id = await alice.create_room(creation_content=given)
    assert await alice.state(room_id, "m.room.create") == {
        "m.federate": False,
        "type": "m.space",
        "org.example": 1,
        "room_version": "12",
    }


async def test_initial_state_goes_before_the_preset_and_behind_name_and_topic(api: Api, writers_database: str) -> None:
    alice = await api.register()
    room_id = await alice.create_room(
        name="The name",
        initial_state=[
            {"type": "m.room.history_visibility", "content": {"history_visibility": "joined"}},
            {"type": "m.room.name", "state_key": "", "content": {"name": "Not this"}},
            {"type": "m.room.topic", "content": {"topic": "Kept"}},
        ],
    )
    assert await alice.state(room_id, "m.room.history_visibility") == {"history_visibility": "joined"}
    assert await alice.state(room_id, "m.room.name") == {"name": "The name"}
    assert await alice.state(room_id, "m.room.topic") == {"topic": "Kept"}
    types = [kind for kind, _ in _types(writers_database, room_id)]
    assert types.count("m.room.history_visibility") == types.count("m.room.name") == 1


async def test_power_levels_can_be_overridden(api: Api) -> None:
    alice, bob = await api.register(), await api.register()
    room_id = await alice.create_room(power_level_content_override={"users": {bob.user_id: 50}, "invite": 70})
    levels = await alice.state(room_id, "m.room.power_levels")
    assert levels is not None and levels["users"] == {bob.user_id: 50}
    assert levels["invite"] == 70 and levels["ban"] == 50


async def test_invitations_say_whether_the_room_is_direct_and_who_is_invited(api: Api) -> None:
    alice, bob = await api.register(), await api.register()
    (await bob.put(f"profile/{bob.user_id}/displayname", {"displayname": "Bob"})).ok()
    room_id = await alice.create_room(invite=[bob.user_id, bob.user_id], is_direct=True)
    content = await alice.state(room_id, "m.room.member", bob.user_id)
    assert content == {"membership": "invite", "is_direct": True, "displayname": "Bob"}


async def test_an_alias_is_given_to_one_room_even_when_two_ask_at_once(api: Api, writers_database: str) -> None:
    users: list[Client] = [await api.register() for _ in range(4)]
    answers = await asyncio.gather(*(user.post("createRoom", {"room_alias_name": "contested"}) for user in users))
    assert sorted(answer.status for answer in answers) == [200, 400, 400, 400]
    assert {answer.errcode for answer in answers if answer.status == 400} == {"M_ROOM_IN_USE"}
    winner = next(answer.body["room_id"] for answer in answers if answer.status == 200)
    found = (await api.anybody.get(f"directory/room/{part('#contested:test.example')}")).ok()
    assert found == {"room_id": winner, "servers": ["test.example"]}
    with psycopg.connect(writers_database) as connection:
        made = connection.execute(
            "select count(*) from eventlog.events where type = 'm.room.create' and sender = any (%s)",
            [[user.user_id for user in users]],
        ).fetchone()
    assert made == (1,)


BAD: list[tuple[dict[str, Any], tuple[int, str]]] = [
    ({"visibility": "secret"}, (400, "M_INVALID_PARAM")),
    ({"visibility": 1}, (400, "M_BAD_JSON")),
    ({"preset": "party"}, (400, "M_INVALID_PARAM")),
    ({"preset": {}}, (400, "M_BAD_JSON")),
    ({"room_alias_name": 1}, (400, "M_BAD_JSON")),
    ({"room_alias_name": ""}, (400, "M_INVALID_PARAM")),
    ({"room_alias_name": "#whole:test.example"}, (400, "M_INVALID_PARAM")),
    ({"room_alias_name": "nul\0"}, (400, "M_INVALID_PARAM")),
    ({"room_alias_name": "x" * 300}, (400, "M_INVALID_PARAM")),
    ({"name": []}, (400, "M_BAD_JSON")),
    ({"topic": 5}, (400, "M_BAD_JSON")),
    ({"topic": "x" * 70_000}, (413, "M_TOO_LARGE")),
    ({"invite": "@a:test.example"}, (400, "M_BAD_JSON")),
    ({"invite": [5]}, (400, "M_BAD_JSON")),
    ({"invite": ["nobody"]}, (400, "M_INVALID_PARAM")),
    ({"invite": ["@a:elsewhere.example"]}, (403, "M_FORBIDDEN")),
    ({"invite": [f"@a{n}:test.example" for n in range(101)]}, (413, "M_TOO_LARGE")),
    ({"invite_3pid": {}}, (400, "M_BAD_JSON")),
    ({"invite_3pid": ["x"]}, (400, "M_BAD_JSON")),
    ({"invite_3pid": [{"medium": "email", "address": "a@b"}]}, (400, "M_MISSING_PARAM")),
    (
        {"invite_3pid": [{"id_server": "a.b", "id_access_token": "c", "medium": "email", "address": "a@b.example"}]},
        (403, "M_SERVER_NOT_TRUSTED"),
    ),
    ({"room_version": "99"}, (400, "M_UNSUPPORTED_ROOM_VERSION")),
    ({"room_version": 12}, (400, "M_BAD_JSON")),
    ({"creation_content": []}, (400, "M_BAD_JSON")),
    ({"creation_content": {"m.federate": "no"}}, (400, "M_BAD_JSON")),
    ({"creation_content": {"additional_creators": "x"}}, (400, "M_INVALID_PARAM")),
    ({"creation_content": {"additional_creators": ["x"]}}, (400, "M_INVALID_PARAM")),
    ({"creation_content": {"org.example": 1.5}}, (400, "M_BAD_JSON")),
    ({"creation_content": {"org.example": "x" * 70_000}}, (413, "M_TOO_LARGE")),
    ({"initial_state": {}}, (400, "M_BAD_JSON")),
    ({"initial_state": [[]]}, (400, "M_BAD_JSON")),
    ({"initial_state": [{"type": 1, "content": {}}]}, (400, "M_BAD_JSON")),
    ({"initial_state": [{"type": "x", "state_key": 1, "content": {}}]}, (400, "M_BAD_JSON")),
    ({"initial_state": [{"type": "x", "content": "x"}]}, (400, "M_BAD_JSON")),
    ({"initial_state": [{"type": "x"}]}, (400, "M_BAD_JSON")),
    ({"initial_state": [{"type": "", "content": {}}]}, (400, "M_INVALID_PARAM")),
    ({"initial_state": [{"type": "m.room.create", "content": {}}]}, (400, "M_INVALID_PARAM")),
    ({"initial_state": [{"type": "m.room.member", "content": {}}]}, (400, "M_INVALID_PARAM")),
    ({"initial_state": [{"type": "x" * 300, "content": {}}]}, (413, "M_TOO_LARGE")),
    ({"initial_state": [{"type": "x", "content": {"n": 2**60}}]}, (400, "M_BAD_JSON")),
    ({"is_direct": 1}, (400, "M_BAD_JSON")),
    ({"power_level_content_override": []}, (400, "M_BAD_JSON")),
    ({"power_level_content_override": {"ban": "50"}, "room_version": "9"}, (400, "M_INVALID_ROOM_STATE")),
    ({"power_level_content_override": {"events": None}, "room_version": "1"}, (400, "M_INVALID_ROOM_STATE")),
    ({"power_level_content_override": {"users": {"@a:b": 1.5}}}, (400, "M_BAD_JSON")),
]


@pytest.mark.parametrize(("options", "refusal"), BAD)
async def test_a_room_that_cannot_be_is_refused(api: Api, options: dict[str, Any], refusal: tuple[int, str]) -> None:
    alice = await api.register()
    assert (await alice.post("createRoom", options)).refusal == refusal


async def test_a_creator_has_no_power_level_in_the_newest_version(api: Api) -> None:
    alice = await api.register()
    answer = await alice.post("createRoom", {"power_level_content_override": {"users": {alice.user_id: 100}}})
    assert answer.refusal == (400, "M_INVALID_PARAM")


async def test_what_the_auth_rules_refuse_makes_no_room(api: Api) -> None:
    alice = await api.register()
    answer = await alice.post("createRoom", {"power_level_content_override": {"users": "everybody"}})
    assert answer.refusal == (400, "M_INVALID_ROOM_STATE")
    # Nobody but the creator could have invited with this.
    answer = await alice.post(
        "createRoom", {"room_version": "11", "power_level_content_override": {"users": {}, "state_default": 50}}
    )
    assert answer.refusal == (400, "M_INVALID_ROOM_STATE")
